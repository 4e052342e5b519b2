#include "cpu/openmp.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <fstream>
#include <sstream>
#include <string>

namespace fanano {

namespace {

// What compilers make of "#pragma omp parallel": body(data) in all threads of a team, the caller's
// among them. threads 0: as many as this thread's parallel regions have, which is what the library
// asks for, too; a team of another size would end threads that the next region has to make again.
using Parallel = void(void (*body)(void*), void* data, unsigned threads, unsigned flags);

std::atomic<Parallel*> parallel{nullptr};

class OpenMp final : public Lender {
 public:
  void run(int, const std::function<void()>& help, const std::function<void()>& work) override {
    struct {
      const std::function<void()>&help, &work;
      pthread_t caller;
    } region{help, work, pthread_self()};
    auto body = [](void* data) {
      auto& r = *static_cast<decltype(region)*>(data);
      pthread_equal(r.caller, pthread_self()) ? r.work() : r.help();
    };
    parallel.load()(body, &region, 0, 0);
  }
};

// Linux's flag PF_FORKNOEXEC, of a child of any fork, however early: the ninth word of its status,
// the second of which may hold blanks.
bool is_forked_child() {
  constexpr unsigned long forked = 0x40;
  std::ifstream file("/proc/self/stat");
  std::string text;
  std::getline(file, text);
  size_t end = text.rfind(')');
  if (end == std::string::npos) return false;
  std::istringstream words(text.substr(end + 1));
  std::string skipped;
  for (int i = 3; i < 9; ++i) words >> skipped;
  unsigned long flags = 0;
  return words >> flags && flags & forked;
}

}  // namespace

bool borrow_openmp(const char* library) {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { parallel = nullptr; });
  void* loaded = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  if (!loaded || registered != 0 || is_forked_child()) return false;
  // In the order in which the loader looks.
  void* found = dlsym(RTLD_DEFAULT, "GOMP_parallel");
  if (!found) found = dlsym(loaded, "GOMP_parallel");
  parallel = reinterpret_cast<Parallel*>(found);
  return found != nullptr;
}

Lender* openmp() {
  static OpenMp team;
  return parallel ? &team : nullptr;
}

}  // namespace fanano
