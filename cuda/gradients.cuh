// The verbs of backward on a warp's fragments: S and dP become P and dS (cpp/math/gradient.hpp has
// the mathematics, for one pair), with query rows down the fragments or across them.
#pragma once

#include "../cpp/math/gradient.hpp"
#include "head_block.cuh"
#include "ptx/ex2.cuh"
#include "row_terms.cuh"
#include "special_values.cuh"

namespace fanano::cuda {

enum class Term { m, inverse, delta };

// The terms of the rows of fragments: down them, in registers.
template <int M> struct TermsDown : RowsDown {
  using Lines = RowsDown;
  float x[3][M][2];

  // f(number, its row's term)
  template <int N, class F>
  __device__ __forceinline__ void each(Term term, float (&s)[M][N][4], F f) const {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) f(s[m][n][e], x[int(term)][m][e / 2]);
  }
};

// Across them, in shared memory: a line of all rows for each term.
template <int Rows> struct TermsAcross : RowsAcross {
  using Lines = RowsAcross;
  uint32_t smem;

  static constexpr int bytes = (3 * Rows * 4 + 127) / 128 * 128;  // tiles may follow
  __device__ TermsAcross(uint32_t smem_) : smem(smem_) {}
  __device__ uint32_t at(int term, int row) const { return smem + (term * Rows + row) * 4; }

  template <int M, int N, class F>
  __device__ __forceinline__ void each(Term term, float (&s)[M][N][4], F f) const {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float2 pair = ptx::load_shared_pair(at(int(term), row(0, n, 0)));
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) f(s[m][n][e], e % 2 ? pair.y : pair.x);
    }
  }
};

// Of the words of Rows rows, one in each lane, with a bit for each of Keys keys: the words of keys.
template <int Rows, int Keys> __device__ __forceinline__ RowBits transposed(RowBits word) {
  static_assert(Rows <= 32);
  RowBits turned = 0;
#pragma unroll
  for (int j = 0; j < Keys; ++j) {
    const uint32_t rows = ptx::ballot(word >> j & 1);
    if (threadIdx.x % 32 % Keys == j) turned = Rows == 32 ? rows : rows & ((1u << Rows) - 1);
  }
  return turned;
}

// x where the word of its line has a bit, times `factor`; else times 0, so that NaN stays.
template <int M, int N>
__device__ __forceinline__ void times_bits(RowBits word, float factor, float (&s)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RowBits bits = fetch_bits<N * 8>(word, m * 16 + half * 8 + threadIdx.x % 32 / 4);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) s[m][n][2 * half + e] *= bits >> (n * 8 + e) & 1 ? factor : 0;
    }
}

// P in the place of S, dS in that of dP. The bits of `lines` are those of what is down the
// fragments. dropped: P without what dropout drops, as values take it.
template <bool General, class Terms, class MaskTile, int M, int N>
__device__ __forceinline__ void
differentiate(const HeadBlock& head, const Terms& terms, const LaneRow& row, const LaneRow& lines,
              HeadBlock::Sees sees, MaskTile addends, float (&s)[M][N][4], float (&dp)[M][N][4]) {
  const ScoreConstants<float>& c = head.constants;
  if constexpr (General) {
    if (head.kept.on) times_bits(lines.kept, head.kept.factor, dp);
    times_sign(c, s);
  }
  terms.each(Term::delta, dp, [](float& x, float delta) { x -= delta; });
  if constexpr (General) {
    if (c.softcap != 0)
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float y = fabsf(s[m][n][e] * c.scale.size);
            dp[m][n][e] *= softcap_slope(exp(-2 * y), 1.f);
          }
    logits(typename Terms::Lines(), c, row, head.elements.additive(), addends, s);
  }
  const float sign = General ? 1 : c.scale.sign * c.scale.power;
  terms.each(Term::m, s,
             [&](float& x, float m) { x = ptx::ex2(__fmaf_rn(x, sign, -m) * c.factor); });
  terms.each(Term::inverse, s, [](float& x, float inverse) { x *= inverse; });
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) dp[m][n][e] *= s[m][n][e];
  if (General && head.kept.on) times_bits(lines.kept, head.kept.factor, s);
  if (sees == HeadBlock::all) return;
  select(lines.seen, 0, s);
  select(lines.seen, 0, dp);
}

// finish: rows [row0, ...) of a warp's sums times a factor, through the tile's rows that are this
// warp's own, so that 16 bytes are stored at once.
template <class T, int M, int Dim, class F>
__device__ __forceinline__ void store_sums(const float (&x)[M][Dim / 8][4], F f,
                                           SwizzledTile<T, Dim> smem, int warp_row,
                                           const HeadRows<T>& to, int64_t row0, int64_t rows) {
  const int lane = threadIdx.x % 32;
  __syncwarp();  // the warp is done with them
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int d = 0; d < Dim / 8; ++d)
        ptx::store_shared(smem.chunk(warp_row + m * 16 + half * 8 + lane / 4, d) + lane % 4 * 4,
                          ptx::pack(T{}, f(x[m][d][2 * half]), f(x[m][d][2 * half + 1])));
  __syncwarp();  // the warp's rows are there
#pragma unroll 1
  for (int i = lane; i < 16 * M * (Dim / 8); i += 32) {
    const int r = warp_row + i / (Dim / 8), c = i % (Dim / 8);
    if (row0 + r < rows) smem.store(r, c, to, row0 + r);
  }
}

// Times the scale, of what is a gradient of scores. Zeros are positive.
struct TimesScale {
  float power, factor;
  __device__ explicit TimesScale(double scale) {
    const Scale<float> s = split_scale<float>(scale);
    power = s.power, factor = s.sign * s.size;
  }
  __device__ float operator()(float x) const { return __fmaf_rn(x * power, factor, 0); }
};

}  // namespace fanano::cuda
