// Online softmax of a strip: math/online_softmax.hpp, one row in each lane, in log2 units.
//
// Two liberties that change no result. m is an integer, so that every rescaling is by a power of
// two and exact. And m follows the maximum lazily: only a row whose maximum has grown by more than
// 2^8 since is rescaled (any m near the maximum serves: Rabe and Staats 2021, section 2). Each row
// decides for itself: what its neighbours see must not reach its bits.
#pragma once

#include "exp2.hpp"
#include "tile.hpp"

namespace fanano::FANANO_ISA {

template <class A> struct State { Strip<A> m, l; };

// Takes in a tile's maxima; returns the factor for o (l is rescaled here). m stands `headroom`
// above the maximum, a whole number: that makes every weight, l and o smaller by 2^headroom.
template <class A>
FANANO_FN Strip<A> absorb(State<A>& state, const Strip<A>& tile_max, A headroom) {
  Strip<A> alpha;
  for (int i = 0; i < M; ++i) {
    Vec<A> m = state.m.v[i], x = tile_max.v[i];
    Vec<A> raised = ceil(x) + Vec<A>::all(headroom);
    raised = select_less(m + Vec<A>::all(8 - headroom), x, raised, m);
    Vec<A> change = max(Vec<A>::all(-bias<A>), m - pivot(raised));
    alpha.v[i] = power_of_two(change + Vec<A>::all(magic<A> + bias<A>));
    state.l.v[i] = state.l.v[i] * alpha.v[i];
    state.m.v[i] = raised;
  }
  return alpha;
}

// Weights of a row are summed in groups, then the groups: a sum of n numbers one by one is wrong by
// sqrt(n) rounding errors, and an error in l is one in every column of the result.
inline constexpr int weights_summed = 16;

// s becomes p = 2^(s - m), and l grows by the tile's sum.
template <class A> void weigh(State<A>& state, int64_t n, A* s) {
  Strip<A> m, sum = Strip<A>::all(0);
  for (int i = 0; i < M; ++i) m.v[i] = pivot(state.m.v[i]);
  for (int64_t first = 0; first < n; first += weights_summed) {
    Strip<A> part = Strip<A>::all(0);
    for (int64_t j = first; j < first + weights_summed && j < n; ++j) {
      Strip<A> x = Strip<A>::load(s + j * strip_rows<A>);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        x.v[i] = exp2(x.v[i] - m.v[i]);
        part.v[i] = part.v[i] + x.v[i];
      }
      x.store(s + j * strip_rows<A>);
    }
    for (int i = 0; i < M; ++i) sum.v[i] = sum.v[i] + part.v[i];
  }
  for (int i = 0; i < M; ++i) state.l.v[i] = state.l.v[i] + sum.v[i];
}

// 1 / l, and 0 for a row that saw nothing.
template <class A> FANANO_FN Strip<A> inverse(const State<A>& state) {
  Strip<A> factor;
  for (int i = 0; i < M; ++i) {
    Vec<A> l = state.l.v[i];
    factor.v[i] = select_equal(l, Vec<A>::all(0), l, Vec<A>{Vec<A>::all(1).v / l.v});
  }
  return factor;
}

// Natural logarithm of the sum of exponentials, from m in log2 units; -inf for an empty row.
FANANO_FN double lse(double m, double l) { return (m + log2_positive(l)) * ln2<double>; }

}  // namespace fanano::FANANO_ISA
