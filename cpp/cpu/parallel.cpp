#include "cpu/parallel.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include "cpu/cpus.hpp"
#include "errors.hpp"
#include "float_mode.hpp"

namespace fanano {

namespace {

// ---- how many threads ---------------------------------------------------------------------------

int default_threads() {
  if (const char* text = std::getenv("FANANO_NUM_THREADS")) {
    char* end;
    long n = std::strtol(text, &end, 10);
    if (end != text && *end == 0 && n >= 1 && n <= most_threads) return int(n);
    if (*text) refuse("threads_variable", text, most_threads);
  }
  int most = std::min(affinity(), most_threads), limit = quota();
  return limit ? std::min(most, limit) : most;
}

std::atomic<int> num_threads{0};  // 0: not asked yet

// ---- the pool -----------------------------------------------------------------------------------

struct Job {
  int64_t tasks;
  void (*body)(void*, int64_t, int);
  void* context;
  int helpers;                      // workers that may still join; guarded by Pool::mutex
  std::atomic<int> next_worker{1};  // the caller is 0
  std::atomic<int64_t> next{0};
  std::atomic<int> working{0};
  std::mutex mutex;
  std::condition_variable idle;
  std::exception_ptr error;  // the first one; guarded by mutex

  void work(int worker) {
    FloatMode mode;
    for (int64_t task; (task = next.fetch_add(1)) < tasks;) {
      try {
        body(context, task, worker);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
        next = tasks;
      }
    }
  }
};

struct Pool {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::shared_ptr<Job>> jobs;
  int threads = 0;

  void run() {
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return !jobs.empty(); });
      std::shared_ptr<Job> job = jobs.front();
      if (--job->helpers == 0) jobs.pop_front();
      job->working.fetch_add(1);
      lock.unlock();
      job->work(job->next_worker.fetch_add(1));
      {
        std::lock_guard done(job->mutex);
        if (job->working.fetch_sub(1) == 1) job->idle.notify_all();
      }
      job.reset();
      lock.lock();
    }
  }

  // Makes threads until there are n; one that cannot be made means fewer, not failure.
  void grow(int n) {
    if (threads >= n) return;
    sigset_t all, old;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 512 << 10);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);  // inherited: signals go to the program's own threads
    for (; threads < n; ++threads) {
      pthread_t thread;
      auto start = [](void* pool) -> void* { return static_cast<Pool*>(pool)->run(), nullptr; };
      if (pthread_create(&thread, &attributes, start, this) != 0) break;
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    pthread_attr_destroy(&attributes);
  }
};

// Never destroyed: workers may outlive static destruction. A forked child has none of the threads,
// so it forgets the pool (whose mutex may be held by one of them) and makes its own when it needs
// one.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { the_pool = nullptr; });
  (void)registered;
  Pool* existing = the_pool.load();
  if (existing) return *existing;
  Pool* fresh = new Pool;
  if (the_pool.compare_exchange_strong(existing, fresh)) return *fresh;
  delete fresh;
  return *existing;
}

}  // namespace

int get_num_threads() {
  int n = num_threads.load();
  if (n == 0) {
    int fresh = default_threads();
    n = num_threads.compare_exchange_strong(n, fresh) ? fresh : n;
  }
  return n;
}

void set_num_threads(int64_t n) {
  if (n < 1 || n > most_threads) refuse("threads", n, most_threads);
  num_threads = int(n);
}

void parallel_for(int64_t tasks, int threads, void (*body)(void*, int64_t, int), void* context) {
  int helpers = int(std::min<int64_t>(threads, tasks)) - 1;
  auto job = std::make_shared<Job>();
  job->tasks = tasks, job->body = body, job->context = context, job->helpers = helpers;
  if (helpers > 0) {
    Pool& p = pool();
    std::lock_guard lock(p.mutex);
    p.grow(helpers);
    p.jobs.push_back(job);
    for (int i = 0; i < std::min(helpers, p.threads); ++i) p.wake.notify_one();
  }
  job->work(0);
  if (helpers > 0) {
    Pool& p = pool();
    std::lock_guard lock(p.mutex);  // nobody joins from here on
    p.jobs.erase(std::remove(p.jobs.begin(), p.jobs.end(), job), p.jobs.end());
  }
  std::exception_ptr error;
  {
    std::unique_lock lock(job->mutex);
    job->idle.wait(lock, [&] { return job->working.load() == 0; });
    error = std::move(job->error);  // a worker may be the last to let go of the job, not of this
  }
  if (error) std::rethrow_exception(std::move(error));
}

}  // namespace fanano
