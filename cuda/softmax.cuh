// The ladder's softmax: naive, safe and online. A block of threads to a row, each thread every
// threads-th number of it; the sums are those of cpp/math/online_softmax.hpp.
#pragma once

#include "../cpp/math/online_softmax.hpp"
#include "exp2.cuh"
#include "kernels.hpp"
#include "reduce.cuh"

namespace fanano::cuda {

inline constexpr int softmax_threads = 128;

template <class T> struct Row {
  T* data;
  int64_t stride, n;

  __device__ auto operator[](int64_t j) const { return number(data[j * stride]); }
};

template <class A> using WarpNumbers = A[softmax_threads / 32];

// The sum of e^(x - m) over the row.
template <class T, class A> __device__ A sum_of_exp(Row<T> x, A m, WarpNumbers<A>& smem) {
  A sum = 0;
  for (int64_t j = threadIdx.x; j < x.n; j += softmax_threads) sum += exp(x[j] - m);
  return block_sum(sum, smem);
}

// One pass: overflows when some x exceeds the logarithm of the largest number.
template <class T, class A> __device__ OnlineSoftmax<A> naive(Row<T> x, WarpNumbers<A>& smem) {
  return {0, sum_of_exp(x, A(0), smem)};
}

// Two passes: the maximum first.
template <class T, class A> __device__ OnlineSoftmax<A> safe(Row<T> x, WarpNumbers<A>& smem) {
  A m = -infinity<A>;
  for (int64_t j = threadIdx.x; j < x.n; j += softmax_threads) m = x[j] > m ? x[j] : m;
  m = block_max(m, smem);
  return {m, sum_of_exp(x, pivot(m), smem)};
}

// One pass: each thread rescales what it has summed so far when its maximum grows (Milakov and
// Gimelshein 2018, algorithm 3, a few numbers at a time), and at the end to the maximum of all.
template <class T, class A> __device__ OnlineSoftmax<A> online(Row<T> x, WarpNumbers<A>& smem) {
  constexpr int chunk = 4;
  OnlineSoftmax<A> state;
  for (int64_t j = threadIdx.x; j < x.n; j += chunk * softmax_threads) {
    A c[chunk], largest = -infinity<A>;
#pragma unroll
    for (int i = 0; i < chunk; ++i) {
      int64_t column = j + i * softmax_threads;
      c[i] = column < x.n ? x[column] : -infinity<A>;
      largest = c[i] > largest ? c[i] : largest;
    }
    state.absorb(largest);
#pragma unroll
    for (int i = 0; i < chunk; ++i) state.l += exp(c[i] - pivot(state.m));
  }
  state.absorb(block_max(state.m, smem));
  state.l = block_sum(state.l, smem);
  return state;
}

template <class T, class A>
__device__ OnlineSoftmax<A> sums(Algorithm algorithm, Row<T> x, WarpNumbers<A>& smem) {
  switch (algorithm) {
    case Algorithm::naive: return naive(x, smem);
    case Algorithm::safe: return safe(x, smem);
    default: return online(x, smem);
  }
}

// The last pass. x and out may be the same: each thread reads its own numbers only.
template <class T, class A>
__device__ void normalise(OnlineSoftmax<A> state, bool naive, Row<const T> x, Row<T> out) {
  // Nothing seen: zeros, but the naive formula's own 0 / 0.
  A factor = naive ? 1 / state.l : state.inverse();
  for (int64_t j = threadIdx.x; j < x.n; j += softmax_threads)
    assign(out.data[j * out.stride], exp(x[j] - pivot(state.m)) * factor);
}

template <class T>
__global__ void __launch_bounds__(softmax_threads)
    softmax_kernel(const __grid_constant__ SoftmaxRows p, int64_t first) {
  __shared__ WarpNumbers<accumulator_t<T>> smem;
  const int64_t row = first + blockIdx.x;
  Row<const T> x{static_cast<const T*>(p.x) + row * p.x_row, p.x_column, p.n};
  Row<T> out{static_cast<T*>(p.out) + row * p.out_row, p.out_column, p.n};
  normalise(sums(p.algorithm, x, smem), p.algorithm == Algorithm::naive, x, out);
}

template <class T> cudaError_t softmax(const SoftmaxRows& p, cudaStream_t stream) {
  if (p.n == 0) return cudaSuccess;
  return in_grids(softmax_kernel<T>, p.rows, softmax_threads, 0, stream, p);
}

}  // namespace fanano::cuda
