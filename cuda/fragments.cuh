// The products of a warp, in fragments of mma.sync: S = Q Kᵀ and O += P V for M fragments of 16
// query rows. With row = lane / 4 and column = lane % 4 * 2, a lane holds of each 16 x 8 fragment
// (row, column), (row, column + 1) and the same of row + 8.
#pragma once

#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "ptx/pack.cuh"
#include "swizzle.cuh"

namespace fanano::cuda {

// Rows [row, row + 16 M) of Q, which is read again for each tile of K: in registers it would take
// Dim / 4 M of them.
template <class T, int M, int Dim, int N>
__device__ __forceinline__ void score(SwizzledTile<T, Dim> q_smem, int row,
                                      SwizzledTile<T, Dim> k_smem, float (&s)[M][N][4]) {
  const int lane = threadIdx.x % 32;
  const auto q_place = q_smem.place(row + lane % 16, lane / 16);
  const auto k_place = k_smem.place(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int i = 0; i < Dim / 16; ++i) {
    uint32_t q_frag[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) ptx::ldmatrix_x4(q_frag[m], q_place.on(m * 16, i * 2));
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t k_frag[4];
      ptx::ldmatrix_x4(k_frag, k_place.on(n * 8, i * 2));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        ptx::mma(T{}, s[m][n], q_frag[m], k_frag[0], k_frag[1]);
        ptx::mma(T{}, s[m][n + 1], q_frag[m], k_frag[2], k_frag[3]);
      }
    }
  }
}

// Keys [16 i, 16 i + 16) and columns [8 d, 8 d + 16) of a tile of V: the fragments of columns 8 d
// and of 8 d + 8, two registers each.
template <class T, int Dim>
__device__ __forceinline__ void read_values(SwizzledTile<T, Dim> v_smem, int i, int d,
                                            uint32_t (&frag)[4]) {
  const int lane = threadIdx.x % 32;
  ptx::ldmatrix_x4_transposed(frag, v_smem.place(lane % 16, lane / 16).on(i * 16, d));
}

// P of keys [16 i, 16 i + 16), rounded to T: also for results in float32, whose rounding is then
// that of their weights.
template <class T, int N>
__device__ __forceinline__ void weights(const float (&s)[N][4], int i, uint32_t (&frag)[4]) {
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    const float* pair = &s[2 * i + part / 2][part % 2 * 2];
    frag[part] = ptx::pack(T{}, pair[0], pair[1]);
  }
}

// change: what is done to the values first.
template <class T, int M, int N, int Dim, class Change>
__device__ __forceinline__ void accumulate(const float (&s)[M][N][4], SwizzledTile<T, Dim> v_smem,
                                           float (&o)[M][Dim / 8][4], Change change) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    uint32_t p_frag[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) weights<T>(s[m], i, p_frag[m]);
#pragma unroll
    for (int d = 0; d < Dim / 8; d += 2) {
      uint32_t v_frag[4];
      read_values(v_smem, i, d, v_frag);
      change(v_frag);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        ptx::mma(T{}, o[m][d], p_frag[m], v_frag[0], v_frag[1]);
        ptx::mma(T{}, o[m][d + 1], p_frag[m], v_frag[2], v_frag[3]);
      }
    }
  }
}

}  // namespace fanano::cuda
