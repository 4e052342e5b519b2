// 2^x, e^x and tanh x of numbers, float and double, by the own polynomial of cpp/math/exp2.hpp: a
// GPU's bits are those of the emulator, and right to the last places.
#pragma once

#include "../cpp/math/exp2.hpp"
#include "numbers.cuh"
#include "ptx/rcp.cuh"

namespace fanano::cuda {

// 2^n from n + bias + magic: the low bits, moved to where the exponent is. n = -bias gives 0.
__device__ __forceinline__ float power_of_two(float shifted) {
  return __int_as_float(__float_as_int(shifted) << mantissa<float>);
}
__device__ __forceinline__ double power_of_two(double shifted) {
  return __longlong_as_double(__double_as_longlong(shifted) << mantissa<double>);
}

// t, what the polynomial is of, and (2^f - 1) / t.
template <class A> __device__ __forceinline__ A exp2_step(A f) {
  return sizeof(A) == sizeof(float) ? f : f * ln2<A>;
}
template <class A> __device__ __forceinline__ A exp2_slope(A t) {
  A p = exp2_term(A(), 0);
#pragma unroll
  for (int k = 1; k < exp2_terms<A>; ++k) p = fma(p, t, exp2_term(A(), k));
  return p;
}
template <class A> __device__ __forceinline__ A exp2_fraction(A f) {
  const A t = exp2_step(f);
  return fma(exp2_slope(t), t, A(1));
}

// 2^x for an x of at most a few tens. What would be no normal number is 0, and so is that of -inf:
// what is hidden weighs exactly nothing. NaN stays NaN.
template <class A> inline constexpr A least_exponent = 1 - bias<A>;
template <class A> __device__ __forceinline__ A exp2(A x) {
  constexpr A shift = magic<A> + bias<A>;
  const A shifted = x + shift;
  const A power = exp2_fraction(x - (shifted - shift)) * power_of_two(shifted);
  return x < least_exponent<A> ? 0 : power;
}

// e^x for any x = 2^n 2^f, n the nearest integer to x log2 e. f takes two fused steps with log2 e
// in two parts, for the product's rounding error would grow with x. 2^n in two factors, so that
// results below the normal numbers are rounded and not flushed.
template <class A> __device__ __forceinline__ A exp(A x) {
  constexpr bool single = sizeof(A) == sizeof(float);
  constexpr A low = single ? A(0x1.4ae0bf85ddf44p-26) : A(0x1.777d0ffda0d24p-56);
  if (x < (single ? A(-104) : A(-746))) return 0;
  if (x > (single ? A(89) : A(710))) return infinity<A>;
  const A n = fma(x, log2e<A>, magic<A>) - magic<A>;
  const A f = fma(x, low, fma(x, log2e<A>, -n));
  const A half = A(int(n) / 2), shift = magic<A> + bias<A>;
  return exp2_fraction(f) * power_of_two(half + shift) * power_of_two(n - half + shift);
}

// A division without the branches of one that minds subnormal numbers.
__device__ __forceinline__ float quotient(float x, float y) {
  const float inverse = ptx::rcp(y), q = x * inverse;
  return fma(fma(-q, y, x), inverse, q);  // its last step
}
__device__ __forceinline__ double quotient(double x, double y) { return x / y; }

// tanh x = t / (t + 2) with t = e^2x - 1 = 2^n (2^f - 1) + (2^n - 1), which loses no digits of a
// small x. From the limit on tanh is 1 to the last place, and t is finite.
template <class A> __device__ __forceinline__ A tanh(A x) {
  constexpr A limit = sizeof(A) == sizeof(float) ? 10 : 20, shift = magic<A> + bias<A>;
  x = x > limit ? limit : x < -limit ? -limit : x;
  const A shifted = fma(x, 2 * log2e<A>, shift), power = power_of_two(shifted);
  const A step = exp2_step(fma(x, 2 * log2e<A>, shift - shifted));
  const A t = fma(power, exp2_slope(step) * step, power - 1);
  return quotient(t, t + 2);
}

}  // namespace fanano::cuda
