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
  Scale<A> scale;  // to the argument of tanh where there is a softcap
  A softcap = 0;   // 0: none
  A slope = 0;     // of ALiBi
  A factor;        // scale.size, or the unit alone

  // unit: log2 e for logits that will be exponents of 2.
  ScoreConstants(const Problem& p, int64_t batch, int64_t head, double unit) {
    const Score& s = p.score;
    bool additive = p.mask.data && p.mask_dtype != Dtype::boolean;
    double cap = softcap_in_range(s.softcap);
    plain = cap == 0 && !s.slopes && !additive;
    scale = split_scale<A>(s.scale, plain ? unit : cap == 0 ? 1 : 1 / cap);
    softcap = A(cap);
    if (s.slopes) slope = A(s.slopes[batch * s.slopes_batch + head]);
    factor = plain ? scale.size : A(unit);
  }
};

// n numbers of an additive mask. The finite ones stay finite when they are added to a score and
// multiplied by log2 e, so that a row of the lowest number is uniform.
template <class A, class T>
FANANO_FN void load_addends(const T* x, int64_t stride, int64_t n, A* to) {
  constexpr A limit = (sizeof(A) == 4 ? A(__FLT_MAX__) : A(__DBL_MAX__)) / 4;
  if constexpr (sizeof(T) > sizeof(A))  // a double's finite numbers may be infinite as floats
    for (int64_t j = 0; j < n; ++j) {
      T y = x[j * stride];
      y = y < -T(limit) && y > -infinity<T> ? -T(limit) : y;
      to[j] = A(y > T(limit) && y < infinity<T> ? T(limit) : y);
    }
  else
    widen(x, stride, to, n);
  for (int64_t j = 0; j < n; ++j) {
    A y = to[j];
    y = y < -limit && y > -infinity<A> ? -limit : y;
    to[j] = y > limit && y < infinity<A> ? limit : y;
  }
}

// The additive mask of the rows r and the keys [j0, j0 + n) as [key][row], into bias; returns null
// if there is none. rows is as in pack().
template <class A>
A* load_bias(const Elements& x, Range r, int64_t j0, int64_t n, A* bias, A* rows) {
  if (!x.additive()) return nullptr;
  with_type(x.dtype, [&]<class T>() {
    const T* first = x.at<T>(r.begin, j0);
    auto fill = [&](int64_t i, A* to) {
      if (x.column == 1) prefetch_next(first + i * x.row, n);
      load_addends(first + i * x.row, x.column, n, to);
    };
    if (x.row != 0) return pack(r.size(), n, fill, A(1), bias, rows);
    fill(0, rows);
    for (int64_t j = 0; j < n; ++j) Strip<A>::all(rows[j]).store(bias + j * strip_rows<A>);
  });
  return bias;
}

// Whether it is -inf everywhere.
template <class A> bool hides_all(const A* bias, int64_t n) {
  Vec<A> hidden = Vec<A>::all(-infinity<A>), seen = Vec<A>::all(0);
  for (int64_t i = 0; i < n * strip_rows<A>; i += Vec<A>::width)
    seen = select_equal(Vec<A>::load(bias + i), hidden, seen, Vec<A>::all(1));
  bool all = true;
  for (int i = 0; i < Vec<A>::width; ++i) all &= seen.v[i] == 0;
  return all;
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

// Everything that a score goes through. position: of the strip's first row, relative to the tile's
// first key; bias: what load_bias() returned.
template <class A>
Strip<A> logits(const ScoreConstants<A>& c, int64_t position, const A* bias, const Visible<A>& see,
                int64_t n, A* s) {
  // Positions of the rows in two parts, so that a distance is rounded once.
  A high[strip_rows<A>], low[strip_rows<A>];
  for (int i = 0; i < strip_rows<A>; ++i) {
    high[i] = A(position + i);
    low[i] = A(position + i - int64_t(high[i]));
  }
  const Vec<A> power = Vec<A>::all(c.scale.power), size = Vec<A>::all(c.scale.size);
  const Vec<A> minus_slope = Vec<A>::all(-c.slope), hidden = Vec<A>::all(-infinity<A>);
  Strip<A> largest = Strip<A>::all(-infinity<A>);
  for (int64_t j = 0; j < n; ++j) {
    Strip<A> x = Strip<A>::load(s + j * strip_rows<A>);
    uint64_t seen = see.whole ? ~uint64_t(0) : see.rows[j];
    for (int m = 0; m < M; ++m) {
      int64_t lane = m * Vec<A>::width;
      Vec<A> y = x.v[m] * power * size;
      if (c.softcap != 0) y = tanh(y) * Vec<A>::all(c.softcap);
      if (c.slope != 0) {
        Vec<A> distance =
            Vec<A>::load(high + lane) + (Vec<A>::load(low + lane) - Vec<A>::all(A(j)));
        y = fma(max(distance, Vec<A>::all(0) - distance), minus_slope, y);
      }
      if (bias) {
        Vec<A> more = Vec<A>::load(bias + j * strip_rows<A> + lane);
        y = select_equal(more, hidden, hidden, y + more);
      }
      y = select_bits(seen >> lane, y, hidden);
      largest.v[m] = max(largest.v[m], y);
      x.v[m] = y;
    }
    x.store(s + j * strip_rows<A>);
  }
  return largest;
}

}  // namespace fanano::FANANO_ISA
