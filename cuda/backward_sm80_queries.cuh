// Flash attention, backward, by the instructions of sm_80: of a block of query rows the RowTerms,
// and dq = dS K. Tiles of K and V stream past q and dout, each loaded while the other is
// multiplied.
//
// m is lse as a score, with an inverse of 1, and delta is dout . out - dlse; but lse was rounded
// when it was written, and so was out. Where that would show, they are made again, from the scores:
// a pass more over the tiles.
#pragma once

#include <new>

#include "absorb.cuh"
#include "backward_tiles.cuh"
#include "gradients.cuh"

namespace fanano::cuda {

// Of a block: what all of its threads have in common, and after it the tiles.
extern __shared__ __align__(128) unsigned char backward_smem[];

// Of the logits, in units of e: from here on lse's rounding shows.
inline constexpr float far_lse = 0x1p8;
// Where so few keys share a row, hardly anything else is rounded.
inline constexpr int64_t few_keys = 64;

template <class T, int Dim, bool General> struct QueriesBlock : HeadBlock {
  static constexpr BackwardTile tile = queries_tile(Dim);
  static constexpr int M = tile.fragments, N = tile.step / 8, D = Dim / 8;
  static constexpr int rows_of_warp = tile.warp_rows(), rows = tile.rows(), keys = tile.step;
  static constexpr int threads = tile.threads();
  using Tile = SwizzledTile<T, Dim>;
  using Addends = MaskTile<rows_of_warp, keys>;
  using Terms = TermsAcross<rows>;
  static constexpr int own_bytes = 512;
  static constexpr int q_at = own_bytes, dout_at = q_at + Tile::bytes(rows);
  static constexpr int k_at = dout_at + Tile::bytes(rows), v_at = k_at + Tile::bytes(keys);
  static constexpr int terms_at = v_at + Tile::bytes(keys), mask_at = terms_at + Terms::bytes;
  static constexpr int smem_bytes = mask_at + (General ? Addends::bytes * tile.warps : 0);
  static_assert(smem_bytes <= 99 * 1024 && rows_of_warp <= 32);

  int64_t row0;
  Range tiles;  // that some row sees
  HeadRows<const T> q, k, v, out, dout;

  __device__ QueriesBlock(const Problem& p, int64_t matrix, int64_t block_row)
      : HeadBlock(p, matrix / p.shape.heads, matrix % p.shape.heads), row0(block_row),
        q(p.q, batch, head, p.shape.dim), k(p.k, batch, kv_head, p.shape.dim),
        v(p.v, batch, kv_head, p.shape.value_dim), out(p.out, batch, head, p.shape.value_dim),
        dout(p.gradient.dout, batch, head, p.shape.value_dim) {
    const Range used{row0, clamp(row0 + rows, row0, sequence.queries)};
    if (used.size()) tiles = mask.tiles(used, keys);
  }

  static __device__ uint32_t smem(int at) { return ptx::shared_address(backward_smem) + at; }
  static __device__ Tile q_smem() { return {smem(q_at)}; }
  static __device__ Tile dout_smem() { return {smem(dout_at)}; }
  static __device__ Tile k_smem() { return {smem(k_at)}; }
  static __device__ Tile v_smem() { return {smem(v_at)}; }
  static __device__ Terms terms() { return {smem(terms_at)}; }
  static __device__ Addends addends() {  // of the warp
    return {smem(mask_at + int(threadIdx.x) / 32 * Addends::bytes)};
  }
  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int warp_row() { return threadIdx.x / 32 * rows_of_warp; }  // in the block

  // f(row, sees, s, dp) for all visible tiles of K and V, with the raw S and dP of the warp. load:
  // Q and dout, too.
  template <class F> __device__ __forceinline__ void stream(bool load, F f) const {
    if (tiles.size() > 0) {
      if (load) {
        q_smem().template load<rows, threads>(q, row0, sequence.queries);
        dout_smem().template load<rows, threads>(dout, row0, sequence.queries);
      }
      v_smem().template load<keys, threads>(v, tiles.begin * keys, sequence.keys);
    }
    ptx::cp_async_commit();

#pragma unroll 1
    for (int64_t t = tiles.begin; t < tiles.end; ++t) {
      const int64_t j0 = t * keys;
      ptx::cp_async_wait<0>();
      __syncthreads();  // V has come, for all; and all are done with the last K
      k_smem().template load<keys, threads>(k, j0, sequence.keys);
      ptx::cp_async_commit();
      Sees sees;
      // Since the last addends were read, the block has waited for V.
      const LaneRow row = look<General>(row0 + warp_row(), j0, addends(), sees);

      float s[M][N][4], dp[M][N][4];
      for_all(dp, [](float) { return 0; });
      if (sees != nothing) score(dout_smem(), warp_row(), v_smem(), dp);
      ptx::cp_async_wait<0>();
      __syncthreads();  // K has come, for all; and all are done with this V
      if (t + 1 < tiles.end) v_smem().template load<keys, threads>(v, j0 + keys, sequence.keys);
      ptx::cp_async_commit();
      if (sees == nothing) continue;
      for_all(s, [](float) { return 0; });
      score(q_smem(), warp_row(), k_smem(), s);
      f(row, sees, s, dp);
    }
    ptx::cp_async_wait<0>();
  }

  // dout . out of the warp's rows, each by as many lanes as it has chunks.
  __device__ __forceinline__ void sum_products() const {
    constexpr int lanes = D > 16 ? 32 : D > 8 ? 16 : D > 4 ? 8 : 4, together = 32 / lanes;
    const int c = lane() % lanes;
#pragma unroll 2
    for (int r0 = 0; r0 < rows_of_warp; r0 += together) {
      const int r = warp_row() + r0 + lane() / lanes;
      const int n = row0 + r < sequence.queries ? dout.numbers_in(c) : 0;
      float sum = 0;
      uint16_t of_out[per_chunk], of_dout[per_chunk];
      read_chunk(out, row0 + r, c, n, of_out), read_chunk(dout, row0 + r, c, n, of_dout);
#pragma unroll
      for (int e = 0; e < per_chunk; ++e)
        sum = __fmaf_rn(number(T{of_out[e]}), number(T{of_dout[e]}), sum);
#pragma unroll
      for (int bits = 1; bits < lanes; bits *= 2) sum += ptx::shuffle_xor(sum, bits);
      if (c == 0) ptx::store_shared(terms().at(int(Term::delta), r), sum);
    }
    __syncwarp();  // those of the warp's rows are there
  }

  // The lane's row, by what was written; whether it is to be made again.
  __device__ __forceinline__ bool read_terms(const Problem& p) const {
    const int r = warp_row() + lane();
    const int64_t i = row0 + r;
    if (lane() >= rows_of_warp) return false;
    if (i >= sequence.queries) return set(r, {}), false;
    const float lse = *at<float>(p.lse, batch, head, i);
    const int64_t columns = mask.columns(i).size();
    const Tensor& dlse = p.gradient.dlse;
    RowTerms<float> x{float(double(pivot(lse)) * log2e<double> / double(constants.factor)),
                      columns ? 1.f : 0.f,
                      columns ? ptx::load_shared_float(terms().at(int(Term::delta), r)) : 0};
    if (dlse.data) x.delta -= *at<const float>(dlse, batch, head, i);
    set(r, x);
    return columns && is_finite(lse) &&
           (elements.data || columns <= few_keys || fabsf(lse) >= far_lse || !is_finite(x.m));
  }
  static __device__ void set(int r, RowTerms<float> x) {
    ptx::store_shared(terms().at(int(Term::m), r), x.m);
    ptx::store_shared(terms().at(int(Term::inverse), r), x.inverse);
    ptx::store_shared(terms().at(int(Term::delta), r), x.delta);
  }

  // The terms of the rows whose bit is set, from the scores. o: of dout . out, which is the sum of
  // p dp.
  __device__ __forceinline__ void make_terms(const Problem& p, uint32_t which) const {
    RowState state[M][2];
    float o[M][1][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      state[m][0] = state[m][1] = RowState{};
#pragma unroll
      for (int e = 0; e < 4; ++e) o[m][0][e] = 0;
    }
    stream(true, [&](const LaneRow& row, Sees sees, float (&s)[M][N][4], float (&dp)[M][N][4]) {
      times_sign(constants, s);
      if constexpr (General) logits(RowsDown(), constants, row, elements.additive(), addends(), s);
      if (sees != all) hide(row.seen, s);
      if (General && kept.on)
        absorb<true>(state, constants.factor, row.kept, false, s, o);
      else
        absorb<false>(state, constants.factor, row.kept, false, s, o);
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float weight = s[m][n][e];  // of 0, whatever dp is
            o[m][0][e] = weight == 0 ? o[m][0][e] : __fmaf_rn(weight, dp[m][n][e], o[m][0][e]);
          }
    });
    const double sink = p.score.sinks ? p.score.sinks[head] : -infinity<double>;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        RowState& row = state[m][half];
        float sum = o[m][0][2 * half] + o[m][0][2 * half + 1];
#pragma unroll
        for (int bits = 1; bits < 4; bits *= 2)
          row.l += ptx::shuffle_xor(row.l, bits), sum += ptx::shuffle_xor(sum, bits);
        const int of_warp = m * 16 + half * 8 + lane() / 4, r = warp_row() + of_warp;
        if (lane() % 4 != 0 || !(which >> of_warp & 1)) continue;
        const FinishedRow finished(row, constants.factor, sink);
        // l is of weights against base factor + shift, which is m factor but for its rounding.
        const float m = pivot(row.m), factor = constants.factor;
        const double rounding = double(m - row.base(factor)) * double(factor) - row.shift(factor);
        RowTerms<float> x{m, finished.factor * ptx::ex2(float(rounding)),
                          sum * finished.factor * kept.factor};
        // What is not finite is so for a reason that out knows: a value of no weight, for one.
        const float written = ptx::load_shared_float(terms().at(int(Term::delta), r));
        if (p.gradient.dlse.data)
          x.delta -= *at<const float>(p.gradient.dlse, batch, head, row0 + r);
        if (!is_finite(written) && row.m != -infinity<float>) x.delta = written;
        set(r, x);
      }
    __syncwarp();  // they are there
  }

  // The terms of the rows, for the kernels that follow and for this one.
  __device__ __forceinline__ void make_terms(const Problem& p, void* workspace, bool& loaded,
                                             TermsDown<M>& down) const {
    sum_products();
    const uint32_t which = ptx::ballot(read_terms(p));
    loaded = __syncthreads_or(which != 0);  // of some warp
    if (loaded) make_terms(p, which);
    const Terms made = terms();
#pragma unroll
    for (int term = 0; term < 3; ++term)
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          down.x[term][m][half] =
              ptx::load_shared_float(made.at(term, warp_row() + m * 16 + half * 8 + lane() / 4));
    const int r = warp_row() + lane();
    if (lane() < rows_of_warp && row0 + r < p.shape.queries)
      row_terms<float>(workspace, p.shape, batch, head)[row0 + r] = {
          ptx::load_shared_float(made.at(0, r)), ptx::load_shared_float(made.at(1, r)),
          ptx::load_shared_float(made.at(2, r))};
  }

  // dq, but for the scale. Carefully: keys that are not finite leave out the rows that do not see
  // them; those that do have NaN there, for their dS is 0 or NaN.
  __device__ __forceinline__ void add_keys(bool load, bool careful, const TermsDown<M>& down,
                                           float (&dq)[M][D][4]) const {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int d = 0; d < D; ++d)
#pragma unroll
        for (int e = 0; e < 4; ++e) dq[m][d][e] = 0;
    stream(load, [&](const LaneRow& row, Sees sees, float (&s)[M][N][4], float (&dp)[M][N][4]) {
      differentiate<General>(*this, down, row, row, sees, addends(), s, dp);
      accumulate_carefully(careful, dp, row.seen, 0, k_smem(), dq);
    });
  }
};

template <class T, int Dim, bool General>
__global__ void __launch_bounds__(queries_tile(Dim).threads())
    backward_queries_kernel(const __grid_constant__ Problem p, void* workspace, int64_t first) {
  using Block = QueriesBlock<T, Dim, General>;
  __shared__ float of_warp_smem[Block::tile.warps];
  const Block& block = *reinterpret_cast<Block*>(backward_smem);
  static_assert(sizeof(Block) <= Block::own_bytes);
  if (threadIdx.x == 0) {
    const int64_t down = (p.shape.queries + Block::rows - 1) / Block::rows;
    const int64_t number = first + blockIdx.x;
    new (backward_smem) Block(p, number / down, number % down * Block::rows);
  }
  __syncthreads();  // it is there
  TermsDown<Block::M> down;
  float dq[Block::M][Block::D][4];
  bool loaded, careful = false;
  block.make_terms(p, workspace, loaded, down);
#pragma unroll 1
  for (;; careful = loaded = true) {
    block.add_keys(!loaded, careful, down, dq);
    if (careful || !broken(dq, of_warp_smem)) break;
  }
  store_sums(dq, TimesScale(p.score.scale), Block::q_smem(), Block::warp_row(),
             HeadRows<T>(p.gradient.dq, block.batch, block.head, p.shape.dim), block.row0,
             p.shape.queries);
}

}  // namespace fanano::cuda
