// From raw scores to logits, for one strip and tile: what math/score.hpp says of one pair, in its
// order. Without softcap, slopes and an additive mask the scale waits until the exponent, and all
// that is left is to hide what a row does not see.
#pragma once

#include "../math/score.hpp"
#include "block.hpp"
#include "exp2.hpp"
#include "tile.hpp"
#include "visible.hpp"

namespace fanano::FANANO_ISA {

// Of one head.
template <class A>
ScoreConstants<A> score_constants(const Problem& p, int64_t batch, int64_t head, double unit) {
  const Score& s = p.score;
  bool additive = p.mask.data && p.mask_dtype != Dtype::boolean;
  double slope = s.slopes ? s.slopes[batch * s.slopes_batch + head] : 0;
  return {s.scale, s.softcap, s.slopes || additive, slope, unit};
}

template <class A> FANANO_FN Vec<A> clamp_finite(Vec<A> x) {
  Vec<A> most = Vec<A>::all(most_added<A>), least = Vec<A>::all(-most_added<A>);
  Vec<A> infinite = Vec<A>::all(infinity<A>), size = max(x, Vec<A>::all(0) - x);
  return select_equal(size, infinite, x, max(least, min(most, x)));
}

// A double's finite numbers may be infinite as floats.
template <class A> FANANO_FN void load_addends(const double* x, int64_t stride, A* to, int64_t n) {
  constexpr double limit = most_added<A>;
  for (int64_t j = 0; j < n; ++j) {
    double y = x[j * stride];
    y = y < -limit && y > -infinity<double> ? -limit : y;
    to[j] = A(y > limit && y < infinity<double> ? limit : y);
  }
}
template <class A, class T>
FANANO_FN void load_addends(const T* x, int64_t stride, A* to, int64_t n) {
  widen(x, stride, to, n);
}

// The additive mask of the rows r and the keys [j0, j0 + n) as [key][row], into bias; returns null
// if there is none. rows is as in pack().
template <class A>
const A* load_bias(const Elements& x, Range r, int64_t j0, int64_t n, A* bias, A* rows) {
  if (!x.additive()) return nullptr;
  with_type(x.dtype, [&]<class T>() {
    const T* first = x.at<T>(r.begin, j0);
    auto fill = [&](int64_t i, A* to) {
      if (x.column == 1) prefetch(first + (i + strip_rows<A>)*x.row, n);
      load_addends(first + i * x.row, x.column, to, n);
    };
    auto clamped = [](Vec<A> y, int) { return clamp_finite(y); };
    if (x.row != 0) return pack(r.size(), n, fill, clamped, bias, rows);
    fill(0, rows);
    for (int64_t j = 0; j < n; ++j)
      for (int m = 0; m < M; ++m)
        clamp_finite(Vec<A>::all(rows[j])).store(bias + j * strip_rows<A> + m * Vec<A>::width);
  });
  return bias;
}

// What a row does not see scores -inf, by selection: nothing that stands there can pass. The others
// are multiplied by factor. Returns the largest of each row, as score() does.
template <class A> Strip<A> hide(const Visible<A>& see, int64_t n, A factor, A* s) {
  Strip<A> largest = Strip<A>::all(-infinity<A>);
  for (int64_t j = 0; j < n; ++j) {
    Strip<A> x = Strip<A>::load(s + j * strip_rows<A>);
    uint64_t rows = see.whole ? ~uint64_t(0) : see.rows[j];
    for (int m = 0; m < M; ++m) {
      x.v[m] = select_bits(rows >> (m * Vec<A>::width), x.v[m] * Vec<A>::all(factor),
                           Vec<A>::all(-infinity<A>));
      largest.v[m] = max(largest.v[m], x.v[m]);
    }
    x.store(s + j * strip_rows<A>);
  }
  return largest;
}

// A raw score times the scale, and capped.
template <bool Capped, class A> FANANO_FN Vec<A> capped(const ScoreConstants<A>& c, Vec<A> x) {
  Vec<A> y = x * Vec<A>::all(c.scale.power) * Vec<A>::all(c.scale.size);
  if constexpr (Capped) y = tanh(y) * Vec<A>::all(c.softcap);
  return y;
}
template <class A> FANANO_FN Vec<A> capped(const ScoreConstants<A>& c, Vec<A> x) {
  return c.softcap != 0 ? capped<true>(c, x) : capped<false>(c, x);
}

// y - slope |p - j|; j is relative to j0, as the row's position is.
template <class A>
FANANO_FN Vec<A> sloped(Vec<A> high, Vec<A> low, Vec<A> minus, Vec<A> j, Vec<A> y) {
  Vec<A> distance = high + (low - j);
  return fma(max(distance, Vec<A>::all(0) - distance), minus, y);
}

// y + an element of an additive mask.
template <class A> FANANO_FN Vec<A> biased(Vec<A> y, Vec<A> more) {
  Vec<A> hidden = Vec<A>::all(-infinity<A>);
  return select_equal(more, hidden, hidden, y + more);
}

// Everything that a score goes through, for these rows and the keys [j0, j0 + n); bias: what
// load_bias() returned.
template <class A>
Strip<A> logits(const ScoreConstants<A>& c, const Mask& mask, Range rows, int64_t j0, const A* bias,
                const Visible<A>& see, int64_t n, A* s) {
  A high[strip_rows<A>], low[strip_rows<A>], minus[strip_rows<A>];
  for (int i = 0; c.slope != 0 && i < strip_rows<A>; ++i) {
    Slope<A> slope(c.slope, mask, rows.begin + i, j0);
    high[i] = slope.high, low[i] = slope.low, minus[i] = slope.minus;
  }
  auto of = [](const A* rows, int m) { return Vec<A>::load(rows + m * Vec<A>::width); };
  const Vec<A> hidden = Vec<A>::all(-infinity<A>);
  auto make = [&]<bool Capped, bool Sloped>() {
    Strip<A> largest = Strip<A>::all(-infinity<A>);
    for (int64_t j = 0; j < n; ++j) {
      uint64_t seen = see.whole ? ~uint64_t(0) : see.rows[j];
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        int64_t lane = m * Vec<A>::width;
        Vec<A> y = capped<Capped>(c, Vec<A>::load(s + j * strip_rows<A> + lane));
        if constexpr (Sloped)
          y = sloped(of(high, m), of(low, m), of(minus, m), Vec<A>::all(A(j)), y);
        if (bias) y = biased(y, of(bias + j * strip_rows<A>, m));
        if (!see.whole) y = select_bits(seen >> lane, y, hidden);
        largest.v[m] = max(largest.v[m], y);
        y.store(s + j * strip_rows<A> + lane);
      }
    }
    return largest;
  };
  if (c.softcap != 0)
    return c.slope != 0 ? make.template operator()<true, true>()
                        : make.template operator()<true, false>();
  return c.slope != 0 ? make.template operator()<false, true>()
                      : make.template operator()<false, false>();
}

}  // namespace fanano::FANANO_ISA
