// Rows of any of the four types to and from the accumulator's type.
#pragma once

#include "simd/simd.hpp"

namespace fanano::FANANO_ISA {

template <class A> FANANO_FN A number(A x) { return x; }
FANANO_FN float number(bfloat16 x) { return to_float(x); }
FANANO_FN float number(float16 x) { return to_float(x); }

FANANO_FN void assign(double& to, double x) { to = x; }
FANANO_FN void assign(float& to, float x) { to = x; }
FANANO_FN void assign(bfloat16& to, float x) { to = to_bfloat16(x); }
FANANO_FN void assign(float16& to, float x) { to = to_float16(x); }

// A vector of the accumulator's type from contiguous elements.
template <class A> FANANO_FN Vec<A> load_wide(const A* p) { return Vec<A>::load(p); }
FANANO_FN Vec<float> load_wide(const bfloat16* p) { return load_brain(p); }
FANANO_FN Vec<float> load_wide(const float16* p) { return load_half(p); }

// n elements, `stride` apart, into a contiguous row.
template <class T, class A> void widen(const T* x, int64_t stride, A* out, int64_t n) {
  if (stride == 1)
    for (int64_t i = 0; i < n; ++i) out[i] = number(x[i]);
  else
    for (int64_t i = 0; i < n; ++i) out[i] = number(x[i * stride]);
}

// A contiguous row to n elements, `stride` apart, rounded to nearest even.
template <class A, class T> void narrow(const A* x, T* out, int64_t stride, int64_t n) {
  if (stride == 1)
    for (int64_t i = 0; i < n; ++i) assign(out[i], x[i]);
  else
    for (int64_t i = 0; i < n; ++i) assign(out[i * stride], x[i]);
}

// Halves have instructions of their own; compilers do not find them in the formula.
template <> inline void widen(const float16* x, int64_t stride, float* out, int64_t n) {
  int64_t i = 0;
  if (stride == 1)
    for (; i + Vec<float>::width <= n; i += Vec<float>::width) load_half(x + i).store(out + i);
  for (; i < n; ++i) out[i] = to_float(x[i * stride]);
}

template <> inline void narrow(const float* x, float16* out, int64_t stride, int64_t n) {
  int64_t i = 0;
  if (stride == 1)
    for (; i + Vec<float>::width <= n; i += Vec<float>::width)
      store_half(Vec<float>::load(x + i), out + i);
  for (; i < n; ++i) out[i * stride] = to_float16(x[i]);
}

}  // namespace fanano::FANANO_ISA
