// The online softmax of one row of a tile of scores, as cpp/math/online_softmax.hpp has it, in the
// exponent of 2 and in float32: this is in the inner loop.
//
// Scores are logits but for a factor, which is positive and makes them so in log2 units: where a
// logit is scale q.k and nothing else, s is q.k. A weight is 2^((s - base) factor - shift); o and
// l are measured against base factor + shift, exactly: what that is away from the maximum does not
// matter. shift is the maximum's own product, rounded once, and base is 0; but where logits are so
// large that a rounding of theirs is one of many powers of 2, base is the maximum.
#pragma once

#include "../cpp/math/online_softmax.hpp"
#include "ptx/ex2.cuh"
#include "row_bits.cuh"

namespace fanano::cuda {

struct RowState {
  float m = -infinity<float>;  // the largest score
  float l = 0;                 // of this thread's columns alone

  __device__ __forceinline__ bool far(float factor) const {
    return fabsf(pivot(m) * factor) > 0x1p20f;
  }
  __device__ __forceinline__ float base(float factor) const { return far(factor) ? m : 0; }
  __device__ __forceinline__ float shift(float factor) const {
    return far(factor) ? 0 : pivot(m) * factor;
  }

  // Takes in a tile with this maximum. Returns what o must be multiplied with (l is, here).
  __device__ __forceinline__ float absorb(float tile_max, float factor) {
    const RowState last = *this;
    m = tile_max > m ? tile_max : m;
    const float change = last.shift(factor) - shift(factor);
    const float alpha = last.m == -infinity<float>
                            ? 0
                            : ptx::ex2(__fmaf_rn(last.base(factor) - base(factor), factor, change));
    l *= alpha;
    return alpha;
  }
};

// What becomes of a row, once the quad's l have been added: a sink is one more logit of weight 1.
struct FinishedRow {
  float factor;  // of o
  float lse;

  __device__ FinishedRow(const RowState& row, float score_factor, double sink) {
    const double own = sink * log2e<double>;
    const bool none = row.m == -infinity<float>;
    const double at =
        double(row.base(score_factor)) * double(score_factor) + double(row.shift(score_factor));
    const double top = none || own > at ? pivot(own) : at;
    const float rescaled = none ? 0 : ptx::ex2(float(at - top));
    const float l = row.l * rescaled + ptx::ex2(float(own - top));
    factor = l == 0 ? 0 : rescaled / l;
    lse = float((l == 0 ? -infinity<double> : top + log2_positive(double(l))) * ln2<double>);
  }
};

// absorb: m, l; s becomes p. kept: what dropout keeps of the lane's row, if Drops. careful: there
// may be infinities in o.
template <bool Drops, int M, int N, int D>
__device__ __forceinline__ void absorb(RowState (&state)[M][2], float factor, RowBits kept,
                                       bool careful, float (&s)[M][N][4], float (&o)[M][D][4]) {
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
      const float alpha = row.absorb(largest, factor);
      const float base = row.base(factor), shift = row.shift(factor);
      if (ptx::ballot(base != 0))
#pragma unroll
        for (int n = 0; n < N; ++n) s[m][n][2 * half] -= base, s[m][n][2 * half + 1] -= base;
      RowBits bits = 0;
      if constexpr (Drops) bits = fetch_bits<N * 8>(kept, m * 16 + half * 8 + threadIdx.x % 32 / 4);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& p = s[m][n][2 * half + e];
          p = ptx::ex2(__fmaf_rn(p, factor, -shift));
          row.l += p;
          if constexpr (Drops) p = bits >> (n * 8 + e) & 1 ? p : 0;
        }
      if (careful)
#pragma unroll
        for (int d = 0; d < D; ++d)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) o[m][d][e] = rescaled(o[m][d][e], alpha);
      else
#pragma unroll
        for (int d = 0; d < D; ++d) o[m][d][2 * half] *= alpha, o[m][d][2 * half + 1] *= alpha;
    }
}

}  // namespace fanano::cuda
