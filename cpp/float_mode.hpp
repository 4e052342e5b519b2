// Rounding and denormal modes: our own while we compute, the caller's again afterwards. Frameworks
// flush denormals for the whole thread (torch.set_flush_denormal, jitted jax); our bits must not
// follow.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace fanano {

class FloatMode {
 public:
#if defined(__x86_64__) || defined(_M_X64)
  FloatMode() : saved_(_mm_getcsr()) {
    _mm_setcsr(0x1f80);
  }  // to nearest, denormals kept, no traps
  ~FloatMode() { _mm_setcsr(saved_); }

 private:
  uint32_t saved_;
#elif defined(__aarch64__)
  FloatMode() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" ::"r"(uint64_t(0)));
  }
  ~FloatMode() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#else
  FloatMode() {}
#endif
 public:
  FloatMode(const FloatMode&) = delete;
};

// f(x) in our modes. Compilers do not know that arithmetic depends on them and move it past their
// change where they see both; what has been through an empty asm statement they cannot move.
template <class T, class F> auto in_float_mode(T x, F f) {
  FloatMode mode;
  __asm__ volatile("" : "+m"(x));
  auto result = f(x);
  __asm__ volatile("" : "+m"(result));
  return result;
}

}  // namespace fanano
