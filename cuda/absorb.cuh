// The online softmax of one row of a tile of scores, as cpp/math/online_softmax.hpp has it, in the
// exponent of 2 and in float32: this is in the inner loop.
//
// Scores are logits but for a factor, which is positive and makes them so in log2 units: where a
// logit is scale q.k and nothing else, s is q.k. A weight is 2^(s factor - shift) with one rounding,
// and shift is the maximum's own product, rounded: the same in every weight of the row, and what
// all is measured against, so that what it is wrong by does not matter, however large logits are.
#pragma once

#include "../cpp/math/online_softmax.hpp"
#include "ptx/ex2.cuh"
#include "row_bits.cuh"

namespace fanano::cuda {

struct RowState {
  float m = -infinity<float>;  // the largest score
  float shift = 0;             // its product with factor; 0 while there is none
  float l = 0;                 // of this thread's columns alone

  // Takes in a tile with this maximum. Returns what o must be multiplied with (l is, here).
  __device__ __forceinline__ float absorb(float tile_max, float factor) {
    float raised = tile_max > m ? tile_max : m;
    float next = pivot(raised) * factor;
    float alpha = m == -infinity<float> ? 0 : ptx::ex2(shift - next);
    m = raised, shift = next, l *= alpha;
    return alpha;
  }

  __device__ __forceinline__ float weight(float s, float factor) const {
    return ptx::ex2(__fmaf_rn(s, factor, -shift));
  }
};

// What becomes of a row, once the quad's l have been added: a sink is one more logit of weight 1.
struct FinishedRow {
  float factor;  // of o
  float lse;

  __device__ FinishedRow(const RowState& row, double sink) {
    const double own = sink * log2e<double>;
    const bool none = row.m == -infinity<float>;
    const double top = none || own > row.shift ? pivot(own) : double(row.shift);
    const float rescaled = none ? 0 : ptx::ex2(float(row.shift - top));
    const float l = row.l * rescaled + ptx::ex2(float(own - top));
    factor = l == 0 ? 0 : rescaled / l;
    lse = float((l == 0 ? -infinity<double> : top + log2_positive(double(l))) * ln2<double>);
  }
};

// absorb: m, l; s becomes p. kept: what dropout keeps of the lane's row, if Drops.
template <bool Drops, int M, int N, int D>
__device__ __forceinline__ void absorb(RowState (&state)[M][2], float factor, RowBits kept,
                                       float (&s)[M][N][4], float (&o)[M][D][4]) {
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
      RowBits bits = 0;
      if constexpr (Drops) bits = fetch_bits<N * 8>(kept, m * 16 + half * 8 + threadIdx.x % 32 / 4);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& p = s[m][n][2 * half + e];
          p = row.weight(p, factor);
          row.l += p;
          if constexpr (Drops) p = bits >> (n * 8 + e) & 1 ? p : 0;
        }
#pragma unroll
      for (int d = 0; d < D; ++d) o[m][d][2 * half] *= alpha, o[m][d][2 * half + 1] *= alpha;
    }
}

}  // namespace fanano::cuda
