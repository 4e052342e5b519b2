// The thread pool: tasks are claimed one by one, the caller works too and waits only for tasks that
// were begun. Workers sleep, block all signals, and belong to this library alone: a second OpenMP
// runtime in a process costs 20x and hangs after fork.
#pragma once

#include <cstdint>
#include <type_traits>

namespace fanano {

// More than any machine has CPUs. Every thread costs a stack and scratch memory: a larger number is
// a slip, and named as such instead of tried.
inline constexpr int most_threads = 4096;

// At first what FANANO_NUM_THREADS says, else the CPUs that this process may use.
int get_num_threads();
void set_num_threads(int64_t);  // throws ValueError outside of [1, most_threads]

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
