// Flash attention, forward, by the instructions of sm_80: tiles of K and V stream past a block of
// query rows; the softmax is online, and nothing of size queries x keys exists (Dao 2023,
// algorithm 1). 16-bit numbers; up to Dim columns of q, k and v, zeros where there are fewer.
// General: masks of the caller's, softcap, slopes and dropout; what they need costs registers.
//
// There is one tile of K and one of V, and each is loaded while the other is multiplied.
//
// All rows are computed as if every value were finite. If some row of the block comes out NaN or
// infinite, the block does its work again, carefully (special_values.cuh): so nobody pays for what
// is rare, and no row's numbers depend on what its neighbours see.
//
// Not there: values whose weighted sum leaves float32 although the result would not. They must be
// within a factor l of its end, where l is the sum of e^(logit - largest logit) of the row.
#pragma once

#include <new>

#include "absorb.cuh"
#include "flash_tiles.cuh"
#include "fragments.cuh"
#include "grid.cuh"
#include "head_block.cuh"
#include "kernel_class.cuh"
#include "kernels.hpp"
#include "special_values.cuh"

namespace fanano::cuda {

// Of a block: what all of its threads have in common, and after it the tiles.
extern __shared__ __align__(128) unsigned char flash_smem[];

// A block's work: which rows of which head, and the verbs on its tiles.
template <class T, int Dim, bool General> struct FlashBlock : HeadBlock {
  static constexpr FlashTile tile = flash_tile(Dim, General);
  static constexpr int M = tile.fragments, N = tile.keys / 8, D = Dim / 8;
  static constexpr int rows_of_warp = tile.warp_rows();
  static constexpr int rows = tile.rows(), keys = tile.keys, threads = tile.threads();
  using Tile = SwizzledTile<T, Dim>;
  using Addends = MaskTile<rows_of_warp, keys>;
  static constexpr int own_bytes = 512;
  static constexpr int q_bytes = Tile::bytes(rows), kv_bytes = Tile::bytes(keys);
  static constexpr int mask_bytes = General ? Addends::bytes * tile.warps : 0;
  static constexpr int smem_bytes = own_bytes + q_bytes + 2 * kv_bytes + mask_bytes;
  static_assert(smem_bytes <= 99 * 1024 && keys <= 64);

  int64_t row0;
  Range tiles;  // that some row sees
  HeadRows<const T> q, k, v;

  __device__ FlashBlock(const Problem& p, int64_t matrix, int64_t block_row)
      : HeadBlock(p, matrix / p.shape.heads, matrix % p.shape.heads), row0(block_row),
        q(p.q, batch, head, p.shape.dim), k(p.k, batch, kv_head, p.shape.dim),
        v(p.v, batch, kv_head, p.shape.value_dim) {
    const Range used{row0, clamp(row0 + rows, row0, sequence.queries)};
    if (used.size()) tiles = mask.tiles(used, keys);
  }

  static __device__ uint32_t smem(int offset) {
    return ptx::shared_address(flash_smem) + own_bytes + offset;
  }
  static __device__ Tile q_smem() { return {smem(0)}; }
  static __device__ Tile k_smem() { return {smem(q_bytes)}; }
  static __device__ Tile v_smem() { return {smem(q_bytes + kv_bytes)}; }
  static __device__ Addends addends() {  // of the warp
    return {smem(q_bytes + 2 * kv_bytes + int(threadIdx.x) / 32 * Addends::bytes)};
  }
  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int warp_row() { return threadIdx.x / 32 * rows_of_warp; }  // in the block

  // score, mask, absorb: P of a tile of K, and what becomes of m, l and o.
  // careful: what is seen and weighs exactly nothing is, from then on, as if it were dropped.
  __device__ __forceinline__ void weigh(LaneRow& row, Sees sees, bool careful, float (&s)[M][N][4],
                                        RowState (&state)[M][2], float (&o)[M][D][4]) const {
    for_all(s, [](float) { return 0; });
    score(q_smem(), warp_row(), k_smem(), s);
    // What of the scale's size is far out; all else.
    if (constants.scale.power != 1) for_all(s, [&](float x) { return x * constants.scale.power; });
    if constexpr (General) logits(RowsDown(), constants, row, elements.additive(), addends(), s);
    if (sees != all) hide(row.seen, s);
    if (careful) row.kept &= ~weightless(s);
    if (General && kept.on)
      absorb<true>(state, constants.factor, row.kept, careful, s, o);
    else
      absorb<false>(state, constants.factor, row.kept, careful, s, o);
  }

  // load: Q, with the sign of the scale, which may be 0: then it is in vain that q.k overflows.
  __device__ __forceinline__ void load_queries() const {
    if (tiles.size() == 0) return;
    q_smem().template load<rows, threads>(q, row0, sequence.queries);
    ptx::cp_async_commit();
    if (constants.scale.sign == 1) return;
    ptx::cp_async_wait<0>();
    q_smem().template multiply<rows, threads>(constants.scale.sign);
  }

  // All visible tiles of K and V, from an empty state.
  __device__ __forceinline__ void stream(bool careful, RowState (&state)[M][2],
                                         float (&o)[M][D][4]) const {
    // nvcc 13.0 makes the members' initial values in the first row of such an array alone, and
    // zeros in the others.
#pragma unroll
    for (int m = 0; m < M; ++m) {
      state[m][0] = state[m][1] = RowState{};
#pragma unroll
      for (int d = 0; d < D; ++d)
#pragma unroll
        for (int e = 0; e < 4; ++e) o[m][d][e] = 0;
    }

    // load: the first tile of K
    if (tiles.size() > 0)
      k_smem().template load<keys, threads>(k, tiles.begin * keys, sequence.keys);
    ptx::cp_async_commit();

    for (int64_t t = tiles.begin; t < tiles.end; ++t) {
      const int64_t j0 = t * keys;
      Sees sees;
      // Since the addends of the last tile were read, the block has waited for V.
      LaneRow row = look<General>(row0 + warp_row(), j0, addends(), sees);
      ptx::cp_async_wait<0>();
      __syncthreads();  // Q and K have come, for all; and all are done with the last V
      v_smem().template load<keys, threads>(v, j0, sequence.keys);
      ptx::cp_async_commit();

      auto next_k = [&] {
        ptx::cp_async_wait<0>();
        __syncthreads();  // V has come, for all; and all are done with this K
        if (t + 1 < tiles.end) k_smem().template load<keys, threads>(k, j0 + keys, sequence.keys);
        ptx::cp_async_commit();
      };
      if (sees == nothing) {
        next_k();
        continue;
      }
      float s[M][N][4];
      weigh(row, sees, careful, s, state, o);
      next_k();
      accumulate_carefully(careful, s, row.seen, row.kept, v_smem(), o);
    }
    ptx::cp_async_wait<0>();
  }

  // finish: o / l and lse. Results of 16 bits go through the rows of Q that are this warp's own, so
  // that 16 bytes are stored at once.
  __device__ __forceinline__ void finish(const Problem& p, RowState (&state)[M][2],
                                         float (&o)[M][D][4]) const {
    const double sink = p.score.sinks ? p.score.sinks[head] : -infinity<double>;
    const bool wide = p.out_dtype == Dtype::float32;
    const HeadRows<float> wide_out(p.out, batch, head, p.shape.value_dim);
    const HeadRows<T> out(p.out, batch, head, p.shape.value_dim);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        RowState& row = state[m][half];
#pragma unroll
        for (int bits = 1; bits < 4; bits *= 2) row.l += ptx::shuffle_xor(row.l, bits);
        const int r = warp_row() + m * 16 + half * 8 + lane() / 4;
        const bool used = row0 + r < sequence.queries, there = row0 + r < p.shape.queries;
        const FinishedRow finished(row, constants.factor, used ? sink : -infinity<double>);
        const float factor = finished.factor * kept.factor;
        if (p.lse.data && lane() % 4 == 0 && there)
          *at<float>(p.lse, batch, head, row0 + r) = finished.lse;
#pragma unroll
        for (int d = 0; d < D; ++d) {
          const float2 pair{rescaled(o[m][d][2 * half], factor),
                            rescaled(o[m][d][2 * half + 1], factor)};
          const int c = d * 8 + lane() % 4 * 2;
          if (!wide) {
            ptx::store_shared(q_smem().chunk(r, d) + lane() % 4 * 4,
                              ptx::pack(T{}, pair.x, pair.y));
          } else if (there) {
            float* to = wide_out.data + (row0 + r) * wide_out.row + c * wide_out.column;
            if (wide_out.chunked && c + 1 < wide_out.columns) {
              ptx::store_global(to, pair);
            } else {
              if (c < wide_out.columns) to[0] = pair.x;
              if (c + 1 < wide_out.columns) to[wide_out.column] = pair.y;
            }
          }
        }
      }
    if (wide) return;
    __syncwarp();  // the warp's rows are there
#pragma unroll
    for (int i = lane(); i < rows_of_warp * D; i += 32) {
      const int r = warp_row() + i / D, c = i % D;
      if (row0 + r < p.shape.queries) q_smem().store(r, c, out, row0 + r);
    }
  }
};

template <class T, int Dim, bool General>
__global__ void __launch_bounds__(flash_tile(Dim, General).threads())
    flash_sm80_kernel(const __grid_constant__ Problem p, int64_t first) {
  using Block = FlashBlock<T, Dim, General>;
  const Block& block = *reinterpret_cast<Block*>(flash_smem);
  static_assert(sizeof(Block) <= Block::own_bytes);
  if (threadIdx.x == 0) {
    const int64_t down = (p.shape.queries + Block::rows - 1) / Block::rows;
    const int64_t block = first + blockIdx.x;
    new (flash_smem) Block(p, block / down, block % down * Block::rows);
  }
  __syncthreads();  // it is there
  if (block.sequence.queries <= decode_queries) return;
  __shared__ float of_warp_smem[Block::tile.warps];
  float o[Block::M][Block::D][4];
  RowState state[Block::M][2];
  block.load_queries();
  bool careful = false;
#pragma unroll 1
  for (;; careful = true) {
    block.stream(careful, state, o);
    if (careful || !broken(o, of_warp_smem)) break;
  }
  block.finish(p, state, o);
}

// Any strides; what it does not take is left to others.
template <class T, int Dim, bool General> bool flash_sm80_takes(const Problem& p) {
  const bool general = p.mask.data || p.score.softcap != 0 || p.score.slopes || p.dropout.p > 0;
  return sm80_takes<T, Dim>(p) && has_prefill(p) && (General || !general);
}

// Sequences of few queries go to decode.
template <class T, int Dim, bool General>
cudaError_t flash_sm80(const Problem& p, void* workspace, cudaStream_t stream) {
  using Block = FlashBlock<T, Dim, General>;
  if (!flash_sm80_takes<T, Dim, General>(p)) return cudaErrorInvalidValue;
  const int64_t blocks =
      p.shape.batch * p.shape.heads * ((p.shape.queries + Block::rows - 1) / Block::rows);
  if (blocks == 0) return cudaSuccess;
  if (has_decode(p))
    if (cudaError_t error = decode_sm80<T, Dim>(p, workspace, stream)) return error;
  const auto kernel = flash_sm80_kernel<T, Dim, General>;
  // More than 48 KiB must be asked for.
  if (cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               Block::smem_bytes))
    return error;
  return in_grids(kernel, blocks, Block::threads, Block::smem_bytes, stream, p);
}

}  // namespace fanano::cuda
