#include "cpu/openmp.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>

namespace fanano {

namespace {

// What compilers make of "#pragma omp parallel": body(data) in all threads of a team, the caller's
// among them. threads 0: as many as this thread's parallel regions have, which is what torch asks
// for, too; a team of another size would end threads that the next region has to make again.
using Parallel = void(void (*body)(void*), void* data, unsigned threads, unsigned flags);

// As the loader has bound torch's own calls, so that there is no second team.
Parallel* find_parallel() {
  void* torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  if (!torch) return nullptr;
  void* found = dlsym(RTLD_DEFAULT, "GOMP_parallel");
  if (!found) found = dlsym(torch, "GOMP_parallel");
  return reinterpret_cast<Parallel*>(found);
}

std::atomic<bool> forked{false};

class OpenMp final : public Lender {
 public:
  explicit OpenMp(Parallel* parallel) : parallel_(parallel) {}

  void run(int, const std::function<void()>& help, const std::function<void()>& work) override {
    struct {
      const std::function<void()>&help, &work;
      pthread_t caller;
    } region{help, work, pthread_self()};
    auto body = [](void* data) {
      auto& r = *static_cast<decltype(region)*>(data);
      pthread_equal(r.caller, pthread_self()) ? r.work() : r.help();
    };
    parallel_(body, &region, 0, 0);
  }

 private:
  Parallel* parallel_;
};

}  // namespace

Lender* openmp_of_torch() {
  static Parallel* const parallel = find_parallel();
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  static OpenMp team(parallel);
  return parallel && registered == 0 && !forked ? &team : nullptr;
}

}  // namespace fanano
