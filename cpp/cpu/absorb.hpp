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

// weight is l of the weights as o sums them: a term may have been rounded. out = o / weight makes a
// row of a single key exact; l is for the lse, and there if that is wanted.
template <class A> struct State { Strip<A> m, l, weight; };

// The state of a row that has seen its sink alone: a logit without a value, -inf for none.
template <class A> FANANO_FN OnlineSoftmax<A> sink_state(double sink, A headroom) {
  if (sink == -infinity<double>) return {};
  A x = A(sink * log2e<double>), m = ceil(Vec<A>::all(x)).v[0] + headroom;
  // As in weigh(): the maximum's own rounding must not show.
  bool huge = m > 8 * magic<A> || m < -8 * magic<A>;
  double exponent = huge ? double(x - m) : sink * log2e<double> - double(m);
  return {m, A(exp2_nonpositive(exponent))};
}

// 2^(m - onto), for whole numbers m of at most `onto`; 0 for an m of -inf. With headroom, which is
// there for what is infinite, no other m gives 0: 0 times an infinity would be NaN.
template <class A> FANANO_FN Vec<A> rescaling(Vec<A> m, Vec<A> onto, A headroom) {
  Vec<A> none = Vec<A>::all(-bias<A>), least = Vec<A>::all(headroom != 0 ? 1 - bias<A> : -bias<A>);
  Vec<A> change = max(least, m - pivot(onto));
  change = select_equal(m, Vec<A>::all(-infinity<A>), none, change);
  return power_of_two(change + Vec<A>::all(magic<A> + bias<A>));
}

// Takes in a tile's maxima, in log2 units once multiplied by `unit`; returns the factor for o (l is
// rescaled here). m stands `headroom` above the maximum, a whole number: that makes every weight, l
// and o smaller by 2^headroom.
template <class A>
FANANO_FN Vec<A> absorb(Vec<A>& m, Vec<A>& l, Vec<A> tile_max, A unit, A headroom) {
  Vec<A> x = tile_max * Vec<A>::all(unit), raised = ceil(x) + Vec<A>::all(headroom);
  raised = select_less(m + Vec<A>::all(8 - headroom), x, raised, m);
  Vec<A> alpha = rescaling(m, raised, headroom);
  l = l * alpha, m = raised;
  return alpha;
}
template <class A>
FANANO_FN Strip<A> absorb(State<A>& state, const Strip<A>& tile_max, A unit, A headroom) {
  Strip<A> alpha;
  for (int i = 0; i < M; ++i) {
    alpha.v[i] = absorb(state.m.v[i], state.l.v[i], tile_max.v[i], unit, headroom);
    state.weight.v[i] = state.weight.v[i] * alpha.v[i];
  }
  return alpha;
}

// The exponent of a weight, unit s - m, rounded once. Where m is so large that its own rounding
// shows, the product is rounded as the maximum's was, so that the largest weight is 1 again.
template <class A> FANANO_FN Vec<A> exponent(Vec<A> s, Vec<A> unit, Vec<A> minus_m) {
  return fma_once(s, unit, minus_m);
}
template <class A> inline constexpr A huge_exponent = 8 * magic<A>;

// Exponents of weights: below `lowest` the weight is 0, but no logit above -inf gets less than
// `least`.
template <class A> struct Weights { A lowest, least = -infinity<A>; };

// Weights reach 2^8 and o sums them unnormalised, so values near the end of the range of A may
// overflow although the result would not. Rows where that happened are computed again, this much
// further down, and what was not finite is replaced. Not at first: there, tiny values would be
// lost.
constexpr int overflow_headroom = 40;

// Floats below 2^-100 add nothing to a sum that 2^40 keys could see, but their products with values
// are subnormal numbers, which take a processor a hundred times as long. They are 0, except in the
// second pass: 0 times an infinity would be NaN, so there no logit weighs less than the smallest
// normal number. What that adds to a column that overflowed is far below its rounding.
template <class A> FANANO_FN Weights<A> weights(A headroom) {
  if (headroom != 0) return {A(1 - bias<A>), A(1 - bias<A>)};
  return {sizeof(A) == sizeof(float) ? A(-100) : A(1 - bias<A>)};
}

// The same for any m, row by row, for neighbours must not matter.
template <class A>
FANANO_FN Vec<A> careful_exponent(Vec<A> s, Vec<A> unit, Vec<A> minus_m, A least) {
  Vec<A> size = max(minus_m, Vec<A>::all(0) - minus_m), limit = Vec<A>::all(huge_exponent<A>);
  Vec<A> y = select_less(limit, size, s * unit + minus_m, exponent(s, unit, minus_m));
  return select_equal(s, Vec<A>::all(-infinity<A>), s, max(Vec<A>::all(least), y));
}

// Weights of a row are summed in groups, then the groups: a sum of n numbers one by one is wrong by
// sqrt(n) rounding errors, and an error in l is one in every column of the result.
inline constexpr int weights_summed = 16;

// p = 2^exponent(s, i), i the vector of the strip, as terms, and zeros up to a whole number of
// them; in the place of s, but for those in parts. weight of the state grows by their
// sum; l by that of what they were before they were rounded, if it is wanted.
template <class E, int Parts, bool With_l, class A, class F>
FANANO_FN void weigh(State<A>& state, int64_t n, A lowest, A* s, E* p, F exponent) {
  constexpr int strip = strip_rows<A>, w = Vec<A>::width;
  for (; n % at_once<E>; ++n) Strip<A>::all(-infinity<A>).store(s + n * strip);
  for (int64_t first = 0; first < n; first += weights_summed) {
    Strip<A> l = Strip<A>::all(0), weight = Strip<A>::all(0);
    for (int64_t j = first; j < first + weights_summed && j < n; j += together<E>) {
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        auto power = [&](int64_t key) {
          Vec<A> x = exponent(Vec<A>::load(s + key * strip + i * w), i);
          if constexpr (With_l) l.v[i] = l.v[i] + exp2(x, lowest);
          if constexpr (together<E> == 1 || Parts > 1)
            return exp2(x, lowest);
          else
            return exp2_rounded(x, lowest);
        };
        Vec<A> x = power(j);
        weight.v[i] = weight.v[i] + x;
        if constexpr (together<E> == 1) {
          x.store(p + j * strip + i * w);
        } else {
          Vec<A> y = power(j + 1);
          weight.v[i] = weight.v[i] + y;
          auto to = reinterpret_cast<uint32_t*>(p + j * strip) + i * w;
          if constexpr (Parts > 1)
            store_parts<Parts>(x, y, to, tile_keys / 2 * strip);
          else
            joined(x, y).store(to);
        }
      }
    }
    if constexpr (With_l) state.l = state.l + l;
    state.weight = state.weight + weight;
  }
}

// p = 2^(unit s - m), and is absorbed. s is lost: p may stand in its place.
template <int Parts, class E, class A>
void weigh(State<A>& state, int64_t n, A unit, Weights<A> weights, bool with_l, A* s, E* p) {
  const Vec<A> c = Vec<A>::all(unit);
  Strip<A> minus;
  Vec<A> largest = Vec<A>::all(0);
  for (int i = 0; i < M; ++i) {
    Vec<A> m = pivot(state.m.v[i]);
    minus.v[i] = Vec<A>::all(0) - m;
    largest = max(largest, max(m, minus.v[i]));
  }
  bool careful = weights.least > -infinity<A>;
  for (int lane = 0; lane < Vec<A>::width; ++lane) careful |= largest.v[lane] > huge_exponent<A>;

  auto once = [&](Vec<A> x, int i) { return exponent(x, c, minus.v[i]); };
  auto carefully = [&](Vec<A> x, int i) {
    return careful_exponent(x, c, minus.v[i], weights.least);
  };
  auto with = [&]<bool With_l>() {
    if (careful)
      weigh<E, Parts, With_l>(state, n, weights.lowest, s, p, carefully);
    else
      weigh<E, Parts, With_l>(state, n, weights.lowest, s, p, once);
  };
  if (with_l)
    with.template operator()<true>();
  else
    with.template operator()<false>();
}

// 1 / l, and 0 for a row that saw nothing.
template <class A> FANANO_FN Vec<A> inverse(Vec<A> l) {
  return select_equal(l, Vec<A>::all(0), l, Vec<A>::all(1) / l);
}
template <class A> FANANO_FN Strip<A> inverse(const State<A>& state) {
  Strip<A> factor;
  for (int i = 0; i < M; ++i) factor.v[i] = inverse(state.weight.v[i]);
  return factor;
}

// Natural logarithm of the sum of exponentials, from m in log2 units; -inf for an empty row.
FANANO_FN double lse(double m, double l) { return (m + log2_positive(l)) * ln2<double>; }

}  // namespace fanano::FANANO_ISA
