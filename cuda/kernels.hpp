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
};

// One variant of flash attention. all_flash_kernels (kernels_table.hpp) has them in an order in
// which the first that takes a problem is the right one.
struct FlashKernel {
  const char* name;
  Dtype dtype;
  int dim;  // columns of q and k, and of v: at most
  bool general;
  bool (*takes)(const Problem&);
  cudaError_t (*launch)(const Problem&,
                        cudaStream_t);  // cudaErrorInvalidValue: it does not take it
};

// One variant of the gradients, of which all_backward_kernels has them in the same order. launch:
// all that p.gradient asks for; the workspace is device memory at a multiple of 256. Neither out
// nor lse has to be read: what they say may be made again.
struct BackwardKernel {
  const char* name;
  Dtype dtype;
  int dim;  // as above
  bool general;
  bool (*takes)(const Problem&);
  int64_t (*workspace)(const Problem&);  // bytes
  cudaError_t (*launch)(const Problem&, void* workspace, cudaStream_t);
};

// n numbers of 8 bytes from the host, which are the caller's again on return, to the device.
cudaError_t upload(const void* from, int64_t n, void* to, cudaStream_t);

}  // namespace fanano::cuda
