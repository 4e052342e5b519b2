// Numbers on the device: elements of memory to float and back, and e^x.
#pragma once

#include "../cpp/math/numbers.hpp"
#include "../cpp/problem.hpp"
#include "ptx/ex2.cuh"

namespace fanano::cuda {

__device__ __forceinline__ double number(double x) { return x; }
__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(bfloat16 x) { return to_float(x); }
__device__ __forceinline__ float number(float16 x) { return to_float(x); }

__device__ __forceinline__ void assign(double& to, double x) { to = x; }
__device__ __forceinline__ void assign(float& to, float x) { to = x; }
__device__ __forceinline__ void assign(bfloat16& to, float x) { to = to_bfloat16(x); }
__device__ __forceinline__ void assign(float16& to, float x) { to = to_float16(x); }

// e^x = 2^n 2^f, n the nearest integer to x log2 e. f takes two fused steps with log2 e in two
// parts, for the product's rounding error would grow with x. 2^n in two factors, so that results
// below the normal numbers are rounded and not flushed.
__device__ __forceinline__ float exp(float x) {
  constexpr float high = log2e<float>, low = float(log2e<double> - double(high));
  if (x < -104) return 0;
  if (x > 89) return infinity<float>;
  int n = __float2int_rn(x * high), half = n / 2;
  float f = __fmaf_rn(x, low, __fmaf_rn(x, high, -float(n)));
  float first = __int_as_float((half + 127) << 23), second = __int_as_float((n - half + 127) << 23);
  return ptx::ex2(f) * first * second;
}

// Element (b, h, row, column = 0) of an operand.
template <class T>
__device__ __forceinline__ T* at(const Tensor& t, int64_t b, int64_t h, int64_t row) {
  return static_cast<T*>(t.data) + b * t.batch + h * t.head + row * t.row;
}

}  // namespace fanano::cuda
