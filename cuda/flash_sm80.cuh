// Flash attention, forward, by the instructions of sm_80: tiles of K and V stream past a block of
// query rows; the softmax is online, and nothing of size queries x keys exists (Dao 2023,
// algorithm 1). 16-bit numbers, 64 columns.
//
// A warp has 32 query rows, in two fragments of 16: with fewer, reading K and V from shared memory
// would take longer than the products. There is one tile of K and one of V, and each is loaded
// while the other is multiplied.
//
// Not there yet: what a row does not see of a tile of V that another row sees has weight 0, but 0
// times a NaN or an infinity is NaN.
#pragma once

#include "../cpp/math/mask.hpp"
#include "../cpp/math/score.hpp"
#include "absorb.cuh"
#include "kernels.hpp"
#include "numbers.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "ptx/pack.cuh"
#include "ptx/shuffle.cuh"
#include "ptx/wide.cuh"
#include "swizzle.cuh"

namespace fanano::cuda {

inline constexpr int flash_warps = 4, flash_threads = 32 * flash_warps;
inline constexpr int flash_rows = 32 * flash_warps, flash_keys = 64, flash_dim = 64;

template <class T>
__global__ void __launch_bounds__(flash_threads)
    flash_sm80_kernel(const __grid_constant__ Problem p) {
  constexpr int M = 2, K = flash_dim / 16, N = flash_keys / 8, D = flash_dim / 8;
  __shared__ __align__(128) T q_memory[flash_rows * flash_dim];
  __shared__ __align__(128) T k_memory[flash_keys * flash_dim], v_memory[flash_keys * flash_dim];
  const SwizzledTile<T> q_smem{ptx::shared_address(q_memory)};
  const SwizzledTile<T> k_smem{ptx::shared_address(k_memory)};
  const SwizzledTile<T> v_smem{ptx::shared_address(v_memory)};

  // Which rows of which head.
  const int64_t down = (p.shape.queries + flash_rows - 1) / flash_rows, matrix = blockIdx.x / down;
  const int64_t head = matrix % p.shape.heads, batch = matrix / p.shape.heads;
  const int64_t kv_head = head / (p.shape.heads / p.shape.kv_heads);
  const int64_t row0 = blockIdx.x % down * flash_rows;
  const Sequence sequence = fanano::sequence(batch, p.shape.queries, p.shape.keys,
                                             p.lengths.queries, p.lengths.keys, p.lengths.q_offset);
  const Mask mask = make_mask(sequence, p.window.left, p.window.right);
  const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 32;
  const Range rows{row0, clamp(row0 + flash_rows, row0, sequence.queries)};
  const Range tiles = rows.size() ? mask.tiles(rows, flash_keys) : Range{};
  const Range warp_rows{row0 + warp_row, clamp(row0 + warp_row + 32, 0, sequence.queries)};
  const Scale<float> scale = split_scale<float>(p.score.scale, log2e<double>);
  const T* k = at<const T>(p.k, batch, kv_head, 0);
  const T* v = at<const T>(p.v, batch, kv_head, 0);

  uint32_t q_frag[M][K][4];
  float o[M][D][4] = {};
  RowState state[M][2];  // of rows lane / 4 and 8 more
  // nvcc 13.0 makes the members' initial values in the first row of such an array alone, and zeros
  // in the others.
#pragma unroll
  for (int m = 0; m < M; ++m) state[m][0] = state[m][1] = RowState{};

  // load: Q and the first tile of K
  if (tiles.size() > 0) {
    q_smem.template load<flash_rows, flash_threads>(at<const T>(p.q, batch, head, 0), p.q.row, row0,
                                                    sequence.queries);
    k_smem.template load<flash_keys, flash_threads>(k, p.k.row, tiles.begin * flash_keys,
                                                    sequence.keys);
  }
  ptx::cp_async_commit();

  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    const int64_t j0 = tile * flash_keys;
    ptx::cp_async_wait<0>();
    __syncthreads();  // K has come, for all; and all are done with the last V
    v_smem.template load<flash_keys, flash_threads>(v, p.v.row, j0, sequence.keys);
    ptx::cp_async_commit();
    if (tile == tiles.begin)
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int i = 0; i < K; ++i)
          ptx::ldmatrix_x4(q_frag[m][i],
                           q_smem.chunk(warp_row + m * 16 + lane % 16, i * 2 + lane / 16));

    // score: S = Q Kᵀ
    float s[M][N][4] = {};
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
      for (int n = 0; n < N; n += 2) {
        uint32_t k_frag[4];
        ptx::ldmatrix_x4(k_frag,
                         k_smem.chunk(n * 8 + lane % 8 + lane / 16 * 8, i * 2 + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < M; ++m) {
          ptx::mma(T{}, s[m][n], q_frag[m][i], k_frag[0], k_frag[1]);
          ptx::mma(T{}, s[m][n + 1], q_frag[m][i], k_frag[2], k_frag[3]);
        }
      }

    // mask: -inf where a row does not see; the sign of the scale, and what of its size is far out
    const bool whole = mask.whole(warp_rows, {j0, j0 + flash_keys}) && warp_rows.size() == 32;
    const float sign = scale.sign * scale.power;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          int64_t row = row0 + warp_row + m * 16 + lane / 4 + e / 2 * 8;
          int64_t column = j0 + n * 8 + lane % 4 * 2 + e % 2;
          bool seen = whole || (row < sequence.queries && mask.visible(row, column));
          s[m][n][e] = seen ? s[m][n][e] * sign : -infinity<float>;
        }

    // absorb: m, l; S becomes P
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        RowState& row = state[m][half];
        float largest = -infinity<float>;
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e)
            largest = s[m][n][e] > largest ? s[m][n][e] : largest;
#pragma unroll
        for (int bits = 1; bits < 4; bits *= 2) {  // a quad of lanes has the row
          float other = ptx::shuffle_xor(largest, bits);
          largest = other > largest ? other : largest;
        }
        float alpha = row.absorb(largest, scale.size);
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s[m][n][e] = row.weight(s[m][n][e], scale.size);
            row.l += s[m][n][e];
          }
#pragma unroll
        for (int d = 0; d < D; ++d) o[m][d][2 * half] *= alpha, o[m][d][2 * half + 1] *= alpha;
      }

    ptx::cp_async_wait<0>();
    __syncthreads();  // V has come, for all; and all are done with this K
    if (tile + 1 < tiles.end)
      k_smem.template load<flash_keys, flash_threads>(k, p.k.row, j0 + flash_keys, sequence.keys);
    ptx::cp_async_commit();

    // accumulate: O += P V
#pragma unroll
    for (int i = 0; i < flash_keys / 16; ++i) {
      uint32_t p_frag[M][4];
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          const float* pair = &s[m][2 * i + part / 2][part % 2 * 2];
          p_frag[m][part] = ptx::pack(T{}, pair[0], pair[1]);
        }
#pragma unroll
      for (int d = 0; d < D; d += 2) {
        uint32_t v_frag[4];
        ptx::ldmatrix_x4_transposed(v_frag, v_smem.chunk(i * 16 + lane % 16, d + lane / 16));
#pragma unroll
        for (int m = 0; m < M; ++m) {
          ptx::mma(T{}, o[m][d], p_frag[m], v_frag[0], v_frag[1]);
          ptx::mma(T{}, o[m][d + 1], p_frag[m], v_frag[2], v_frag[3]);
        }
      }
    }
  }
  ptx::cp_async_wait<0>();

  // finish: o / l and lse, through the rows of Q that are this warp's own, so that 16 bytes are
  // stored at once
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      RowState& row = state[m][half];
#pragma unroll
      for (int bits = 1; bits < 4; bits *= 2) row.l += ptx::shuffle_xor(row.l, bits);
      const int r = warp_row + m * 16 + half * 8 + lane / 4;
      const float factor = row.inverse();
#pragma unroll
      for (int d = 0; d < D; ++d)
        ptx::store_shared(
            q_smem.chunk(r, d) + lane % 4 * 4,
            ptx::pack(T{}, o[m][d][2 * half] * factor, o[m][d][2 * half + 1] * factor));
      if (p.lse.data && lane % 4 == 0 && row0 + r < p.shape.queries)
        *at<float>(p.lse, batch, head, row0 + r) = row.lse();
    }
  __syncwarp();  // the warp's rows are there
#pragma unroll
  for (int i = lane; i < 32 * chunks; i += 32) {
    const int r = warp_row + i / chunks, c = i % chunks;
    if (row0 + r < p.shape.queries)
      ptx::store_global(at<T>(p.out, batch, head, row0 + r) + c * 8,
                        ptx::load_shared(q_smem.chunk(r, c)));
  }
}

// What the kernel takes: rows of 64 contiguous numbers, at multiples of 16 bytes. No mask but by
// position, no softcap, slopes, sinks or dropout.
template <class T> bool flash_sm80_takes(const Problem& p) {
  if (p.shape.dim != flash_dim || p.shape.value_dim != flash_dim || p.out_dtype != p.dtype)
    return false;
  if (p.mask.data || p.score.softcap || p.score.slopes || p.score.sinks || p.dropout.p)
    return false;
  for (const Tensor* t : {&p.q, &p.k, &p.v, &p.out})
    if (t->column != 1 || t->row % 8 || t->head % 8 || t->batch % 8 ||
        reinterpret_cast<uintptr_t>(t->data) % 16)
      return false;
  return true;
}

template <class T> cudaError_t flash_sm80(const Problem& p, cudaStream_t stream) {
  if (!flash_sm80_takes<T>(p)) return cudaErrorInvalidValue;
  const int64_t blocks =
      p.shape.batch * p.shape.heads * ((p.shape.queries + flash_rows - 1) / flash_rows);
  if (blocks == 0) return cudaSuccess;
  flash_sm80_kernel<T><<<unsigned(blocks), flash_threads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace fanano::cuda
