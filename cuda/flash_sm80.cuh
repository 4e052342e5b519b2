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
#include "kept.cuh"
#include "kernels.hpp"
#include "mask_scores.cuh"
#include "reduce.cuh"
#include "special_values.cuh"

namespace fanano::cuda {

// Of a block: what all of its threads have in common, and after it the tiles.
extern __shared__ __align__(128) unsigned char flash_smem[];

// A block's work: which rows of which head, and the verbs on its tiles. It stands in shared memory,
// made by one thread: held in registers, it would leave too few for o and s.
template <class T, int Dim, bool General> struct FlashBlock {
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

  int64_t batch, head, row0;
  Sequence sequence;
  Mask mask;
  Range tiles;  // that some row sees
  HeadRows<const T> q, k, v;
  Elements elements;
  Kept kept;
  ScoreConstants<float> constants;

  __device__ FlashBlock(const Problem& p, int64_t matrix, int64_t block_row)
      : batch(matrix / p.shape.heads), head(matrix % p.shape.heads), row0(block_row),
        sequence(fanano::sequence(batch, p.shape.queries, p.shape.keys, p.lengths.queries,
                                  p.lengths.keys, p.lengths.q_offset)),
        mask(make_mask(sequence, p.window.left, p.window.right)), q(p.q, batch, head, p.shape.dim),
        k(p.k, batch, kv_head(p), p.shape.dim), v(p.v, batch, kv_head(p), p.shape.value_dim),
        elements(p, batch, head), kept(p.dropout, batch, head),
        constants(score_constants<float>(p, batch, head, log2e<double>)) {
    const Range used{row0, clamp(row0 + rows, row0, sequence.queries)};
    if (used.size()) tiles = mask.tiles(used, keys);
  }
  __device__ int64_t kv_head(const Problem& p) const {
    return head / (p.shape.heads / p.shape.kv_heads);
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

  // What the lane knows of its row of a tile, and how much of the tile its warp sees.
  enum Sees { nothing, some, all };
  __device__ LaneRow look(int64_t j0, Sees& sees) const {
    LaneRow row;
    const int64_t first = row0 + warp_row(), own_row = first + lane() % rows_of_warp;
    const Range warp_rows{first, clamp(first + rows_of_warp, 0, sequence.queries)};
    const Range columns = mask.columns(warp_rows), tile_columns{j0, j0 + keys};
    sees = nothing;
    if (warp_rows.size() == 0 || columns.end <= j0 || columns.begin >= j0 + keys) return row;
    sees = warp_rows.size() == rows_of_warp && mask.whole(warp_rows, tile_columns) ? all : some;
    if (sees != all) row.seen = own_row < sequence.queries ? bits_of(mask.columns(own_row), j0) : 0;
    if constexpr (General) {
      if (elements.data) {
        // Since those of the last tile were read, the block has waited for V.
        row.seen &= addends().load(elements, first, warp_rows, j0, sequence.keys);
        __syncwarp();  // the new ones are there
        sees = some;
      }
      if (kept.on) row.kept = kept.template of_row<keys>(own_row, j0);
      if (constants.slope != 0) {
        const Slope<float> slope(constants.slope, mask, own_row, j0);
        row.high = slope.high, row.low = slope.low, row.minus = slope.minus;
      }
    }
    return row;
  }

  // score, mask, absorb: P of a tile of K, and what becomes of m, l and o.
  // careful: what is seen and weighs exactly nothing is, from then on, as if it were dropped.
  __device__ __forceinline__ void weigh(LaneRow& row, Sees sees, bool careful, float (&s)[M][N][4],
                                        RowState (&state)[M][2], float (&o)[M][D][4]) const {
    for_all(s, [](float) { return 0; });
    score(q_smem(), warp_row(), k_smem(), s);
    // What of the scale's size is far out; all else.
    if (constants.scale.power != 1) for_all(s, [&](float x) { return x * constants.scale.power; });
    if constexpr (General) logits(constants, row, elements.additive(), addends(), s);
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
      LaneRow row = look(j0, sees);
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
      if (careful) {
        accumulate(s, v_smem(), o, [](uint32_t (&v_frag)[4]) {
#pragma unroll
          for (int part = 0; part < 4; ++part) v_frag[part] = finite<T>(v_frag[part]);
        });
        accumulate_specials<T, M, N>(row.seen, row.kept, v_smem(), o);
      } else {
        accumulate(s, v_smem(), o, [](uint32_t (&)[4]) {});
      }
    }
    ptx::cp_async_wait<0>();
  }

  // Whether some thread of the block has a sum that is not finite.
  __device__ bool broken(const float (&o)[M][D][4]) const {
    __shared__ float of_warp_smem[tile.warps];
    float none = 0;  // NaN if there is
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int d = 0; d < D; ++d)
#pragma unroll
        for (int e = 0; e < 4; ++e) none = __fmaf_rn(o[m][d][e], 0, none);
    return block_max(none == 0 ? 0.f : 1.f, of_warp_smem) > 0;
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
  float o[Block::M][Block::D][4];
  RowState state[Block::M][2];
  block.load_queries();
  bool careful = false;
#pragma unroll 1
  for (;; careful = true) {
    block.stream(careful, state, o);
    if (careful || !block.broken(o)) break;
  }
  block.finish(p, state, o);
}

// Any strides; what it does not take is left to others.
template <class T, int Dim, bool General> bool flash_sm80_takes(const Problem& p) {
  const bool general = p.mask.data || p.score.softcap != 0 || p.score.slopes || p.dropout.p > 0;
  const bool dtypes =
      std::is_same_v<T, bfloat16> ? p.dtype == Dtype::bfloat16 : p.dtype == Dtype::float16;
  return dtypes && (p.out_dtype == p.dtype || p.out_dtype == Dtype::float32) &&
         p.shape.dim <= Dim && p.shape.value_dim <= Dim && (General || !general);
}

template <class T, int Dim, bool General>
cudaError_t flash_sm80(const Problem& p, cudaStream_t stream) {
  using Block = FlashBlock<T, Dim, General>;
  if (!flash_sm80_takes<T, Dim, General>(p)) return cudaErrorInvalidValue;
  const int64_t blocks =
      p.shape.batch * p.shape.heads * ((p.shape.queries + Block::rows - 1) / Block::rows);
  if (blocks == 0) return cudaSuccess;
  const auto kernel = flash_sm80_kernel<T, Dim, General>;
  // More than 48 KiB must be asked for.
  if (cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               Block::smem_bytes))
    return error;
  return in_grids(blocks, [&](unsigned n, int64_t first) {
    kernel<<<n, Block::threads, Block::smem_bytes, stream>>>(p, first);
  });
}

}  // namespace fanano::cuda
