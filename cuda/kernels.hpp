// What the CUDA side offers: a table of entry points for each dtype, made by cmake/cuda.cmake.
// Pointers are of device memory, lengths included. Calls return at once; what a kernel does wrong
// is known when the stream is waited for.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../cpp/problem.hpp"

namespace fanano::cuda {

struct SoftmaxRows {  // rows of n numbers each, strides in elements
  Algorithm algorithm;
  int64_t rows, n;
  const void* x;
  int64_t x_row, x_column;
  void* out;
  int64_t out_row, out_column;
};

struct Kernels {
  Dtype dtype;

  // Any strides; out may be x.
  cudaError_t (*softmax)(const SoftmaxRows&, cudaStream_t);

  // scores: (batch, heads, queries, keys) of the accumulator's type, scratch. Every option but
  // dropout.
  cudaError_t (*materialised)(const Problem&, void* scores, cudaStream_t);

  // Every problem: what no special kernel takes.
  cudaError_t (*flash_plain)(const Problem&, cudaStream_t);

  // Scale, windows, lengths, grouped-query heads; no mask, softcap, slopes, sinks or dropout. Rows
  // of 64 contiguous numbers at multiples of 16 bytes, out of the same dtype; else
  // cudaErrorInvalidValue. Null: not for this dtype.
  cudaError_t (*flash)(const Problem&, cudaStream_t);
};

}  // namespace fanano::cuda
