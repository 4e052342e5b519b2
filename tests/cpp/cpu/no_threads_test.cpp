// A machine that refuses to make threads: the work is done by the caller alone.
#include <pthread.h>

#include <cerrno>

#include "../check.hpp"
#include "cpu/parallel.hpp"

static int refused = 0;

// Stands before the C library's for the whole program.
extern "C" int pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) {
  ++refused;
  return EAGAIN;
}

TEST(fewer_threads_are_no_failure) {
  for (int round = 0; round < 3; ++round) {
    std::vector<int> runs(100);
    fanano::parallel_for(100, 4, [&](int64_t task, int worker) {
      CHECK(worker == 0);
      runs[size_t(task)]++;
    });
    for (int r : runs) CHECK(r == 1);
  }
  CHECK(refused > 0);
}
