// Sequences with few queries have kernels of their own, decode's, whatever batch they are in: the
// bits of a row depend on that (its kernel class), so that both sides must agree on it here.
#pragma once

#include <cuda_runtime_api.h>

#include <type_traits>

#include "../cpp/problem.hpp"
#include "states.cuh"

namespace fanano::cuda {

// 16-bit numbers of up to Dim columns, which kernels by sm_80's instructions take.
template <class T, int Dim> bool sm80_takes(const Problem& p) {
  constexpr Dtype dtype = std::is_same_v<T, bfloat16> ? Dtype::bfloat16 : Dtype::float16;
  return p.dtype == dtype && (p.out_dtype == dtype || p.out_dtype == Dtype::float32) &&
         p.shape.dim <= Dim && p.shape.value_dim <= Dim;
}

// Whether a problem may have sequences of either kind: lengths can be on the device.
inline bool has_decode(const Problem& p) {
  return p.lengths.queries || p.shape.queries <= decode_queries;
}
inline bool has_prefill(const Problem& p) { return p.shape.queries > decode_queries; }

// Decode's sequences of a problem; the others it leaves alone. In an object of its own.
template <class T, int Dim> cudaError_t decode_sm80(const Problem&, void* workspace, cudaStream_t);

// Bytes of device memory for them, a function of the shapes alone.
inline int64_t decode_workspace(const Problem& p) {
  return has_decode(p) ? States::bytes(p.shape) : 0;
}

}  // namespace fanano::cuda
