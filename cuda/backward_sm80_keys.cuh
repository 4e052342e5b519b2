// Flash attention, backward, by the instructions of sm_80: dk = dSᵀ Q and dv = Pᵀ dO of a block of
// keys of one key head. Tiles of Q and dout of the query heads that share it stream past k and v,
// head by head, one tile while the last is multiplied. Keys are down the fragments and rows across
// them, so that P and dS are where the products take them.
#pragma once

#include <new>

#include "backward_tiles.cuh"
#include "gradients.cuh"

namespace fanano::cuda {

extern __shared__ __align__(128) unsigned char backward_smem[];

template <class T, int Dim, bool General> struct KeysBlock : HeadBlock {
  static constexpr BackwardTile tile = keys_tile;
  static constexpr int M = tile.fragments, N = tile.step / 8, D = Dim / 8;
  static constexpr int keys_of_warp = tile.warp_rows(), keys = tile.rows(), rows = tile.step;
  static constexpr int threads = tile.threads();
  using Tile = SwizzledTile<T, Dim>;
  using Addends = MaskTile<rows, keys_of_warp, 4>;
  using Terms = TermsAcross<rows>;
  // Of one stage: Q, dout and the terms.
  static constexpr int tile_bytes = Tile::bytes(rows);
  static constexpr int stage_bytes = 2 * tile_bytes + Terms::bytes;
  static constexpr int own_bytes = 512;
  static constexpr int k_at = own_bytes, v_at = k_at + Tile::bytes(keys);
  static constexpr int stages_at = v_at + Tile::bytes(keys);
  static constexpr int mask_at = stages_at + 2 * stage_bytes;
  static constexpr int smem_bytes = mask_at + (General ? Addends::bytes * tile.warps : 0);
  static_assert(smem_bytes <= 99 * 1024);

  struct Stage {
    Tile q, dout;
    Terms terms;
    __device__ Stage(int64_t t)
        : q{smem(stages_at + int(t % 2) * stage_bytes)}, dout{q.smem + tile_bytes},
          terms(dout.smem + tile_bytes) {}
  };

  int64_t key0;
  Range tiles;  // of rows that see some key
  HeadRows<const T> q, dout;
  const RowTerms<float>* terms;

  __device__ KeysBlock(const Problem& p, void* workspace, int64_t batch_, int64_t head_,
                       int64_t block_key)
      : HeadBlock(p, batch_, head_), key0(block_key), q(p.q, batch, head, p.shape.dim),
        dout(p.gradient.dout, batch, head, p.shape.value_dim),
        terms(row_terms<float>(workspace, p.shape, batch, head)) {
    const Range used{key0, clamp(key0 + keys, key0, sequence.keys)};
    if (used.size() == 0) return;
    const int64_t begin = clamp(mask.rows(used.begin).begin, 0, sequence.queries);
    const int64_t end = clamp(mask.rows(used.end - 1).end, 0, sequence.queries);
    if (begin < end) tiles = {begin / rows, (end + rows - 1) / rows};
  }

  static __device__ uint32_t smem(int at) { return ptx::shared_address(backward_smem) + at; }
  static __device__ Tile k_smem() { return {smem(k_at)}; }
  static __device__ Tile v_smem() { return {smem(v_at)}; }
  static __device__ Addends addends() {  // of the warp
    return {smem(mask_at + int(threadIdx.x) / 32 * Addends::bytes)};
  }
  static __device__ int warp_key() { return threadIdx.x / 32 * keys_of_warp; }  // in the block

  __device__ __forceinline__ void load(int64_t t) const {
    const Stage stage(t);
    const int64_t i0 = t * rows;
    stage.q.template load<rows, threads>(q, i0, sequence.queries);
    stage.dout.template load<rows, threads>(dout, i0, sequence.queries);
    if (const int x = ptx::thread_index(); x < 3 * rows) {
      const bool there = i0 + x / 3 < sequence.queries;
      ptx::cp_async_float(
          stage.terms.at(x % 3, x / 3),
          reinterpret_cast<const float*>(terms + (there ? i0 : 0)) + (there ? x : 0), there);
    }
  }

  // All rows of the head: dk, but for the scale, and dv. Carefully: rows that are not finite leave
  // out the keys that they do not see; to dk of others they are NaN, for their dS is 0 or NaN.
  __device__ __forceinline__ void add_rows(bool careful, float (&dk)[M][D][4],
                                           float (&dv)[M][D][4]) const {
    if (tiles.size() > 0) load(tiles.begin);
    ptx::cp_async_commit();
#pragma unroll 1
    for (int64_t t = tiles.begin; t < tiles.end; ++t) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // the tile has come, for all; and all are done with that before it
      if (t + 1 < tiles.end) load(t + 1);
      ptx::cp_async_commit();
      Sees sees;
      const LaneRow row = look<General>(t * rows, key0 + warp_key(), addends(), sees);
      if (sees == nothing) continue;
      LaneRow lines;  // of keys
      if (sees != all) lines.seen = transposed<rows, keys_of_warp>(row.seen);
      if (General && kept.on) lines.kept = transposed<rows, keys_of_warp>(row.kept);

      const Stage stage(t);
      float s[M][N][4], dp[M][N][4];
      for_all(s, [](float) { return 0; }), for_all(dp, [](float) { return 0; });
      score(k_smem(), warp_key(), stage.q, s);
      score(v_smem(), warp_key(), stage.dout, dp);
      differentiate<General>(*this, stage.terms, row, lines, sees, addends(), s, dp);
      accumulate_carefully(careful, s, lines.seen, lines.kept, stage.dout, dv);
      accumulate_carefully(careful, dp, lines.seen, 0, stage.q, dk);
    }
    ptx::cp_async_wait<0>();
  }
};

template <class T, int Dim, bool General>
__global__ void __launch_bounds__(keys_tile.threads(), keys_blocks)
    backward_keys_kernel(const __grid_constant__ Problem p, void* workspace, int64_t first) {
  using Block = KeysBlock<T, Dim, General>;
  constexpr int M = Block::M, D = Block::D;
  __shared__ float of_warp_smem[Block::tile.warps];
  const Block& block = *reinterpret_cast<Block*>(backward_smem);
  static_assert(sizeof(Block) <= Block::own_bytes);
  const Shape& shape = p.shape;
  const int64_t group = shape.heads / shape.kv_heads;
  if (threadIdx.x == 0) {  // where it is, which is then read from there: registers are few
    const int64_t down = (shape.keys + Block::keys - 1) / Block::keys, number = first + blockIdx.x;
    const int64_t matrix = number / down;
    new (backward_smem) Block(p, workspace, matrix / shape.kv_heads,
                              matrix % shape.kv_heads * group, number % down * Block::keys);
  }
  float dk[M][D][4], dv[M][D][4];
  bool careful = false;
#pragma unroll 1
  for (;; careful = true) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int d = 0; d < D; ++d)
#pragma unroll
        for (int e = 0; e < 4; ++e) dk[m][d][e] = dv[m][d][e] = 0;
#pragma unroll 1
    for (int64_t h = 0; h < group; ++h) {
      __syncthreads();  // all are done with the last head
      if (threadIdx.x == 0)
        new (backward_smem) Block(p, workspace, block.batch, block.kv_head * group + h, block.key0);
      __syncthreads();  // this one is there
      if (h == 0 && !careful) {
        const int64_t keys = block.sequence.keys;
        Block::k_smem().template load<Block::keys, Block::threads>(
            HeadRows<const T>(p.k, block.batch, block.kv_head, shape.dim), block.key0, keys);
        Block::v_smem().template load<Block::keys, Block::threads>(
            HeadRows<const T>(p.v, block.batch, block.kv_head, shape.value_dim), block.key0, keys);
      }
      block.add_rows(careful, dk, dv);
    }
    bool whole = !broken(dk, of_warp_smem);
    whole = !broken(dv, of_warp_smem) && whole;  // which all threads ask, too
    if (careful || whole) break;
  }
  store_sums(dk, TimesScale(p.score.scale), Block::k_smem(), Block::warp_key(),
             HeadRows<T>(p.gradient.dk, block.batch, block.kv_head, shape.dim), block.key0,
             shape.keys);
  store_sums(
      dv, [](float x) { return x; }, Block::v_smem(), Block::warp_key(),
      HeadRows<T>(p.gradient.dv, block.batch, block.kv_head, shape.value_dim), block.key0,
      shape.keys);
}

}  // namespace fanano::cuda
