// The yardstick of speed: multiply-adds from registers to registers, nothing else. Every figure we
// publish is a fraction of what this loop reaches in the same process.
#include "entry_points.hpp"

namespace fanano::FANANO_ISA {

namespace {

// Holds x in a register: what is computed is neither hoisted nor dropped.
template <class V> FANANO_FN void keep(V& x) {
#if defined(__x86_64__)
  __asm__ volatile("" : "+v"(x.v));
#else
  __asm__ volatile("" : "+w"(x.v));
#endif
}

}  // namespace

double peak(int64_t rounds) {
  constexpr int chains = vector_registers == 32 ? 16 : 12;  // enough to hide the latency
  using V = Vec<float>;
  V sum[chains], x = V::all(1), y = V::all(0.5f);
  for (V& s : sum) s = V::all(0);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (V& s : sum) {
      s = fma(s, y, x);
      keep(s);
    }
  }
  return 2.0 * double(rounds) * chains * V::width;
}

}  // namespace fanano::FANANO_ISA
