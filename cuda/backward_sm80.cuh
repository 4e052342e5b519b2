// Flash attention, backward, by the instructions of sm_80, for 16-bit numbers: a kernel for dq,
// which makes the RowTerms on its way, and one for dk and dv (Dao et al. 2022, algorithm 4; Dao
// 2023, algorithm 2). What a block writes is its own, summed in one order: no two blocks ever add
// to one place, and none waits for another.
//
// P and dS are rounded to T for their products. Not there: a dS beyond the range of float16.
#pragma once

#include "backward_rows.cuh"
#include "backward_sm80_keys.cuh"
#include "backward_sm80_queries.cuh"
#include "grid.cuh"
#include "kernels.hpp"

namespace fanano::cuda {

// dbias, which the general kernel makes of the same RowTerms, in an object of its own.
template <class T> cudaError_t launch_bias(const Problem&, void* workspace, cudaStream_t);

// Any strides; what it does not take is left to others: results in float32; a scale of 0, by which
// q.k would be multiplied when it may have overflowed; key heads without query heads.
template <class T, int Dim, bool General> bool backward_sm80_takes(const Problem& p) {
  const bool general = p.mask.data || p.score.softcap != 0 || p.score.slopes || p.dropout.p > 0;
  const bool dtypes =
      std::is_same_v<T, bfloat16> ? p.dtype == Dtype::bfloat16 : p.dtype == Dtype::float16;
  return dtypes && p.out_dtype == p.dtype && p.score.scale != 0 && p.shape.heads > 0 &&
         p.shape.dim <= Dim && p.shape.value_dim <= Dim && (General || !general);
}

inline int64_t backward_sm80_workspace(const Problem& p) { return row_terms_bytes<float>(p.shape); }

// A kernel with one of these blocks to so many rows of each matrix.
template <class Block, class Kernel>
cudaError_t launch_blocks(Kernel kernel, int64_t matrices, int64_t rows, const Problem& p,
                          void* workspace, cudaStream_t stream) {
  const int64_t blocks = matrices * ((rows + Block::tile.rows() - 1) / Block::tile.rows());
  if (blocks == 0) return cudaSuccess;
  // More than 48 KiB must be asked for.
  if (cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               Block::smem_bytes))
    return error;
  return in_grids(kernel, blocks, Block::threads, Block::smem_bytes, stream, p, workspace);
}

template <class T, int Dim, bool General>
cudaError_t backward_sm80(const Problem& p, void* workspace, cudaStream_t stream) {
  if (!backward_sm80_takes<T, Dim, General>(p)) return cudaErrorInvalidValue;
  const Shape& s = p.shape;
  if (cudaError_t error = launch_blocks<QueriesBlock<T, Dim, General>>(
          backward_queries_kernel<T, Dim, General>, s.batch * s.heads, s.queries, p, workspace,
          stream))
    return error;
  if (cudaError_t error = launch_blocks<KeysBlock<T, Dim, General>>(
          backward_keys_kernel<T, Dim, General>, s.batch * s.kv_heads, s.keys, p, workspace,
          stream))
    return error;
  if (cudaError_t error = launch_bias<T>(p, workspace, stream)) return error;
  return launch_sinks<float>(p, workspace, stream);
}

}  // namespace fanano::cuda
