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
  int helpers;  // how many may join
  int missing;  // workers of our pool that are still asked to; guarded by Pool::mutex
  std::atomic<int64_t> next{0};
  std::mutex mutex;  // guards what follows
  std::condition_variable idle;
  bool open = true;     // the caller has not gone on: body and context are there
  int next_worker = 1;  // the caller is 0
  int working = 0;
  std::exception_ptr error;  // the first one

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

  // What a thread that was asked for help does, however late it comes.
  void help() {
    std::unique_lock lock(mutex);
    if (!open || next_worker > helpers) return;
    int worker = next_worker++;
    ++working;
    lock.unlock();
    work(worker);
    lock.lock();
    if (--working == 0) idle.notify_all();
  }

  // The caller's end of it: nobody joins from here on, and those who did are waited for.
  void finish() {
    std::unique_lock lock(mutex);
    open = false;
    idle.wait(lock, [&] { return working == 0; });
    std::exception_ptr first = std::move(error);  // a helper may be the last to let go of the job
    lock.unlock();
    if (first) std::rethrow_exception(std::move(first));
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
      if (--job->missing == 0) jobs.pop_front();
      lock.unlock();
      job->help();
      job.reset();
      lock.lock();
    }
  }

  void ask(const std::shared_ptr<Job>& job) {
    std::lock_guard lock(mutex);
    grow(job->helpers);
    jobs.push_back(job);
    for (int i = 0; i < std::min(job->helpers, threads); ++i) wake.notify_one();
  }

  void forget(const std::shared_ptr<Job>& job) {
    std::lock_guard lock(mutex);
    jobs.erase(std::remove(jobs.begin(), jobs.end(), job), jobs.end());
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

thread_local Lender* borrowed = nullptr;  // null: our pool helps

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

// One who cannot be asked means fewer, not failure: the others may be at work.
void Scheduler::run(int helpers, const std::function<void()>& help,
                    const std::function<void()>& work) {
  try {
    for (int i = 0; i < helpers; ++i) schedule(help);
  } catch (const std::exception&) {
  }
  work();
}

Borrowed::Borrowed(Lender* lender) : before_(std::exchange(borrowed, lender)) {}
Borrowed::~Borrowed() { borrowed = before_; }

void parallel_for(int64_t tasks, int threads, void (*body)(void*, int64_t, int), void* context) {
  int helpers = int(std::min<int64_t>(threads, tasks)) - 1;
  if (helpers <= 0) {
    FloatMode mode;
    for (int64_t task = 0; task < tasks; ++task) body(context, task, 0);
    return;
  }
  auto job = std::make_shared<Job>();
  job->tasks = tasks, job->body = body, job->context = context;
  job->helpers = job->missing = helpers;
  if (borrowed) {
    borrowed->run(helpers, [job] { job->help(); }, [&] { job->work(0); });
  } else {
    pool().ask(job);
    job->work(0);
    pool().forget(job);
  }
  job->finish();
}

}  // namespace fanano
