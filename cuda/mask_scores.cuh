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

// x where the word of its line, as the lane of that number has it, has a bit; else `other`.
template <int M, int N>
__device__ __forceinline__ void select(RowBits word, float other, float (&s)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RowBits bits = fetch_bits<N * 8>(word, m * 16 + half * 8 + threadIdx.x % 32 / 4);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[m][n][2 * half + e];
          x = bits >> (n * 8 + e) & 1 ? x : other;
        }
    }
}

template <int M, int N> __device__ __forceinline__ void hide(RowBits seen, float (&s)[M][N][4]) {
  select(seen, -infinity<float>, s);
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

// Which of a tile's rows and columns a lane's fragments hold: query rows down them and keys
// across, or the other way round.
struct RowsDown {
  static __device__ __forceinline__ int row(int m, int, int e) {
    return m * 16 + e / 2 * 8 + threadIdx.x % 32 / 4;
  }
  static __device__ __forceinline__ int key(int, int n, int e) {
    return n * 8 + threadIdx.x % 4 * 2 + e % 2;
  }
};
struct RowsAcross {
  static __device__ __forceinline__ int row(int m, int n, int e) { return RowsDown::key(m, n, e); }
  static __device__ __forceinline__ int key(int m, int n, int e) { return RowsDown::row(m, n, e); }
};

// The scores as logits() takes them: times the sign of the scale, and what of its size is far out.
template <int M, int N>
__device__ __forceinline__ void times_sign(const ScoreConstants<float>& c, float (&s)[M][N][4]) {
  const float sign = c.scale.sign * c.scale.power;
  for_all(s, [&](float x) { return x * sign; });
}

// Scale, softcap, slopes and the addends that lie in shared memory, if `additive`.
template <class Rows, class MaskTile, int M, int N>
__device__ __forceinline__ void logits(Rows rows, const ScoreConstants<float>& c,
                                       const LaneRow& lane_row, bool additive, MaskTile addends,
                                       float (&s)[M][N][4]) {
  if (!c.plain) for_all(s, [&](float x) { return x * c.scale.size; });
  if (c.softcap != 0) for_all(s, [&](float x) { return tanh(x) * c.softcap; });
  if (c.slope != 0)
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int r = rows.row(m, n, e);  // the same of many: one shuffle for all of them
          const float high = ptx::shuffle(lane_row.high, r), low = ptx::shuffle(lane_row.low, r);
          const float distance = high + (low - float(rows.key(m, n, e)));
          s[m][n][e] = __fmaf_rn(fabsf(distance), ptx::shuffle(lane_row.minus, r), s[m][n][e]);
        }
  if (additive)
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
          const auto at = [&](int i) { return addends.at(rows.row(m, n, i), rows.key(m, n, i)); };
          float2 more;
          if constexpr (std::is_same_v<Rows, RowsDown>)
            more = ptx::load_shared_pair(at(e));
          else
            more = {ptx::load_shared_float(at(e)), ptx::load_shared_float(at(e + 1))};
          s[m][n][e] += more.x, s[m][n][e + 1] += more.y;
        }
}

}  // namespace fanano::cuda
