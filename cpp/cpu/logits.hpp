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

// The constants of one head. Where `plain`, nothing but the scale is to be done, and logits are
// what they should be only after a product with `factor`; else they are, but for their unit.
template <class A> struct ScoreConstants {
  bool plain;
  Scale<A> scale;    // to the argument of tanh where there is a softcap
  A softcap = 0;     // 0: none
  double slope = 0;  // of ALiBi
  A factor;          // scale.size, or the unit alone

  // unit: log2 e for logits that will be exponents of 2.
  ScoreConstants(const Problem& p, int64_t batch, int64_t head, double unit) {
    const Score& s = p.score;
    bool additive = p.mask.data && p.mask_dtype != Dtype::boolean;
    double cap = softcap_in_range<A>(s.softcap);
    plain = cap == 0 && !s.slopes && !additive;
    scale = split_scale<A>(s.scale, plain ? unit : cap == 0 ? 1 : 1 / cap);
    softcap = A(cap);
    if (s.slopes) slope = s.slopes[batch * s.slopes_batch + head];
    factor = plain ? scale.size : A(unit);
  }
};

// Finite numbers of an additive mask stay finite when they are added to a score and multiplied by
// log2 e, so that a row of the lowest number is uniform.
template <class A>
inline constexpr A most_added = (sizeof(A) == 4 ? A(__FLT_MAX__) : A(__DBL_MAX__)) / 4;

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

// What ALiBi needs of a row. A slope that would make the bias of the row's farthest key infinite is
// the steepest that does not: every weight is 0 or 1 long before. Each row by itself, for its bits
// must not depend on what others see.
template <class A> struct Slope {
  A high, low;  // position - j0, in two parts, which are exact where a float tells keys apart
  A minus;

  Slope(double slope, const Mask& mask, int64_t row, int64_t j0) {
    constexpr double limit = (sizeof(A) == 4 ? double(__FLT_MAX__) : __DBL_MAX__) / 8;
    int64_t p, from_j0;
    if (__builtin_add_overflow(row, mask.offset, &p)) p = INT64_MAX;
    if (__builtin_sub_overflow(p, j0, &from_j0)) from_j0 = INT64_MIN;
    bool far = from_j0 > far_away || from_j0 < -far_away;
    high = A(from_j0);
    low = far ? 0 : A(from_j0 - int64_t(high));
    Range seen = mask.columns(row);
    double before = double(p) - double(seen.begin), after = double(seen.end - 1) - double(p);
    double farthest = before > after ? before : after, steepest = limit;
    if (farthest > 1) steepest /= farthest;
    minus = A(slope > steepest ? -steepest : slope < -steepest ? steepest : -slope);
  }
};

// A raw score times the scale, and capped.
template <class A> FANANO_FN Vec<A> capped(const ScoreConstants<A>& c, Vec<A> x) {
  Vec<A> y = x * Vec<A>::all(c.scale.power) * Vec<A>::all(c.scale.size);
  return c.softcap != 0 ? tanh(y) * Vec<A>::all(c.softcap) : y;
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
  Strip<A> largest = Strip<A>::all(-infinity<A>);
  for (int64_t j = 0; j < n; ++j) {
    Strip<A> x = Strip<A>::load(s + j * strip_rows<A>);
    for (int m = 0; m < M; ++m) {
      int64_t lane = m * Vec<A>::width;
      Vec<A> y = capped(c, x.v[m]);
      if (c.slope != 0) y = sloped(of(high, m), of(low, m), of(minus, m), Vec<A>::all(A(j)), y);
      if (bias) y = biased(y, of(bias + j * strip_rows<A>, m));
      if (!see.whole) y = select_bits(see.rows[j] >> lane, y, hidden);
      largest.v[m] = max(largest.v[m], y);
      x.v[m] = y;
    }
    x.store(s + j * strip_rows<A>);
  }
  return largest;
}

}  // namespace fanano::FANANO_ISA
