// The online softmax of one row of a tile of scores, as cpp/math/online_softmax.hpp has it, in the
// exponent of 2 and in float32: this is in the inner loop.
//
// Scores are q.k; factor, which is positive, makes logits in log2 units of them. A weight is
// 2^(s factor - shift) with one rounding, and shift is the maximum's own product, rounded: the same
// in every weight of the row, so that what it is wrong by divides out, however large logits are.
#pragma once

#include "../cpp/math/online_softmax.hpp"
#include "ptx/ex2.cuh"

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

  // Once the quad's l have been added.
  __device__ float inverse() const { return l == 0 ? 0 : 1 / l; }
  __device__ float lse() const {
    if (m == -infinity<float>) return m;
    return float((double(shift) + log2_positive(double(l))) * ln2<double>);
  }
};

}  // namespace fanano::cuda
