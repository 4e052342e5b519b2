// AVX-512, its BF16 and AMX for tests where there is AVX2 alone (cmake/isa.cmake): vectors of their
// size, and the numbers that their instructions make, but for products and sums that are rounded up
// to the smallest normal number, which those take for too small. The kernels are tested so, not
// avx512.hpp itself.
#pragma once

namespace fanano::FANANO_ISA {
inline constexpr int vector_bytes = 64, vector_registers = 32;
}  // namespace fanano::FANANO_ISA

#include "vec.hpp"

#include "software.hpp"

namespace fanano::FANANO_ISA {

FANANO_FN float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FANANO_FN double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
template <class T> FANANO_FN Vec<T> fused(Vec<T> a, Vec<T> b, Vec<T> c) {
  for (int i = 0; i < Vec<T>::width; ++i) c.v[i] = fused(a.v[i], b.v[i], c.v[i]);
  return c;
}
FANANO_FN Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return fused(a, b, c); }
FANANO_FN Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return fused(a, b, c); }

}  // namespace fanano::FANANO_ISA

#ifdef FANANO_PAIRS
#include "pairs.hpp"

namespace fanano::FANANO_ISA {
FANANO_FN Brains narrowed(Vec<float> first, Vec<float> second) {
  return to_brains(flushed(first), flushed(second));
}
}  // namespace fanano::FANANO_ISA
#endif

#ifdef FANANO_TILES
#include "tiles.hpp"
#endif
