// Numbers on the device: elements of memory to the accumulator and back.
#pragma once

#include "../cpp/math/numbers.hpp"
#include "../cpp/problem.hpp"

namespace fanano::cuda {

__device__ __forceinline__ double number(double x) { return x; }
__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(bfloat16 x) { return to_float(x); }
__device__ __forceinline__ float number(float16 x) { return to_float(x); }

__device__ __forceinline__ void assign(double& to, double x) { to = x; }
__device__ __forceinline__ void assign(float& to, float x) { to = x; }
__device__ __forceinline__ void assign(bfloat16& to, float x) { to = to_bfloat16(x); }
__device__ __forceinline__ void assign(float16& to, float x) { to = to_float16(x); }

// a b + c with one rounding.
__device__ __forceinline__ float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double fma(double a, double b, double c) { return __fma_rn(a, b, c); }

template <class A> __device__ __forceinline__ bool is_finite(A x) { return x - x == 0; }

// A sum of weighted values, times a factor that is positive, but may be too small for an A: an
// infinity stays one. A zero has no sign, for its terms' depends on what else was added.
template <class A> __device__ __forceinline__ A rescaled(A sum, A factor) {
  return factor == 0 && !is_finite(sum) ? sum : fma(sum, factor, A(0));
}

// Element (b, h, row, column = 0) of an operand.
template <class T>
__device__ __forceinline__ T* at(const Tensor& t, int64_t b, int64_t h, int64_t row) {
  return static_cast<T*>(t.data) + b * t.batch + h * t.head + row * t.row;
}

}  // namespace fanano::cuda
