// One number out of the numbers of all threads of a block.
#pragma once

#include "ptx/shuffle.cuh"

namespace fanano::cuda {

// What combine, which is associative and commutative, makes of every thread's x: the same bits in
// all threads, and in every run. Smem has a place for each warp.
template <class A, int Warps, class Combine>
__device__ A reduce_block(A x, A (&of_warp_smem)[Warps], Combine combine) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) x = combine(x, ptx::shuffle_xor(x, bits));
  if (threadIdx.x % 32 == 0) of_warp_smem[threadIdx.x / 32] = x;
  __syncthreads();  // every warp's part is there
  A all = of_warp_smem[0];
#pragma unroll
  for (int w = 1; w < Warps; ++w) all = combine(all, of_warp_smem[w]);
  __syncthreads();  // and everybody has read it: the next reduction may write
  return all;
}

// A comparison with NaN is false: the maximum passes it over, and the sum does not.
template <class A, int Warps> __device__ A block_max(A x, A (&smem)[Warps]) {
  return reduce_block(x, smem, [](A a, A b) { return a > b ? a : b; });
}
template <class A, int Warps> __device__ A block_sum(A x, A (&smem)[Warps]) {
  return reduce_block(x, smem, [](A a, A b) { return a + b; });
}

}  // namespace fanano::cuda
