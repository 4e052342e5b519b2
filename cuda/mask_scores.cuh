// mask: the scores of a warp become logits, -inf where a row does not see; cpp/math/score.hpp says
// how, for one pair.
#pragma once

#include "row_bits.cuh"

namespace fanano::cuda {

// What lane l knows of row l of the warp, and of one tile.
struct LaneRow {
  RowBits seen = ~RowBits(0), kept = ~RowBits(0);
  float high = 0, low = 0, minus = 0;  // of its Slope
};

template <int M, int N> __device__ __forceinline__ void hide(RowBits seen, float (&s)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RowBits bits = fetch_bits<N * 8>(seen, m * 16 + half * 8 + threadIdx.x % 32 / 4);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[m][n][2 * half + e];
          x = bits >> (n * 8 + e) & 1 ? x : -infinity<float>;
        }
    }
}

// f(x) in place of every score.
template <int M, int N, class F> __device__ __forceinline__ void for_all(float (&s)[M][N][4], F f) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[m][n][e] = f(s[m][n][e]);
}

// Scale, softcap, slopes and the addends that lie in shared memory, if `additive`.
template <class MaskTile, int M, int N>
__device__ __forceinline__ void logits(const ScoreConstants<float>& c, const LaneRow& row,
                                       bool additive, MaskTile addends, float (&s)[M][N][4]) {
  const int quad = threadIdx.x % 32 / 4, first = threadIdx.x % 4 * 2;
  if (!c.plain) for_all(s, [&](float x) { return x * c.scale.size; });
  if (c.softcap != 0) for_all(s, [&](float x) { return tanh(x) * c.softcap; });
  if (c.slope != 0)
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = m * 16 + half * 8 + quad;
        const float high = ptx::shuffle(row.high, r), low = ptx::shuffle(row.low, r);
        const float minus = ptx::shuffle(row.minus, r);
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const float distance = high + (low - float(n * 8 + first + e));
            s[m][n][2 * half + e] = __fmaf_rn(fabsf(distance), minus, s[m][n][2 * half + e]);
          }
      }
  if (additive)
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const float2 more =
              ptx::load_shared_pair(addends.at(m * 16 + half * 8 + quad, n * 8 + first));
          s[m][n][2 * half] += more.x, s[m][n][2 * half + 1] += more.y;
        }
}

}  // namespace fanano::cuda
