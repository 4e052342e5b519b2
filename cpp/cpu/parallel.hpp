// Loops over many threads: tasks are claimed one by one, the caller works too and waits only for
// tasks that were begun. Helpers come from a pool of our own, whose workers sleep and block all
// signals (a second OpenMP runtime in a process costs 20x and hangs after fork), or are borrowed;
// who borrows a team waits for all of it.
#pragma once

#include <cstdint>
#include <functional>
#include <type_traits>

namespace fanano {

// More than any machine has CPUs. Every thread costs a stack and scratch memory: a larger number is
// a slip, and named as such instead of tried.
inline constexpr int most_threads = 4096;

// At first what FANANO_NUM_THREADS says, else the CPUs that this process may use.
int get_num_threads();
void set_num_threads(int64_t);  // throws ValueError outside of [1, most_threads]

// The threads of somebody else's pool.
class Lender {
 public:
  // work() here, and help() in some of them at the same time. Returns after work(); a team may wait
  // for all of its threads first, a Scheduler waits for none. More than `helpers`, or fewer, do no
  // harm.
  virtual void run(int helpers, const std::function<void()>& help,
                   const std::function<void()>& work) = 0;

 protected:
  ~Lender() = default;
};

// One that does what it is asked to when it comes to it.
class Scheduler : public Lender {
 public:
  // Calls help() in one of them, now, later or never: nobody waits for one that has not begun.
  virtual void schedule(std::function<void()> help) = 0;
  void run(int helpers, const std::function<void()>& help, const std::function<void()>& work) final;

 protected:
  ~Scheduler() = default;
};

// While it lives, the loops that this thread calls for are helped from there, or by our own pool
// (null). What they compute does not depend on it.
class Borrowed {
 public:
  explicit Borrowed(Lender*);
  ~Borrowed();
  Borrowed(const Borrowed&) = delete;

 private:
  Lender* before_;
};

// body(context, task, worker) for every task in [0, tasks), on at most `threads` threads, each with
// a worker number of its own below that. An exception ends the work and is rethrown here. Safe to
// call from many threads at once, and in a forked child.
void parallel_for(int64_t tasks, int threads, void (*body)(void*, int64_t, int), void* context);

template <class F> void parallel_for(int64_t tasks, int threads, F&& f) {
  parallel_for(
      tasks, threads,
      [](void* context, int64_t task, int worker) {
        (*static_cast<std::remove_reference_t<F>*>(context))(task, worker);
      },
      &f);
}

}  // namespace fanano
