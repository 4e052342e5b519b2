// A machine that refuses to make threads, at once or after some: the others do the work.
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "../check.hpp"
#include "cpu/parallel.hpp"

static int allowed = 0, refused = 0;

// Stands before the C library's for the whole program.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) {
  if (allowed <= 0) return ++refused, EAGAIN;
  --allowed;
  auto real = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
  return real(thread, attributes, start, argument);
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
  CHECK(refused == 3);
}

TEST(those_that_were_made_take_part) {
  allowed = 1, refused = 0;
  std::atomic<int> helped{0};
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!helped && std::chrono::steady_clock::now() < until) {
    std::vector<std::atomic<int>> runs(100);
    fanano::parallel_for(100, 4, [&](int64_t task, int worker) {
      CHECK(0 <= worker && worker < 2);
      helped += worker != 0;
      runs[size_t(task)]++;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    });
    for (auto& r : runs) CHECK(r == 1);
  }
  CHECK(helped > 0);
  CHECK(refused > 0);
}
