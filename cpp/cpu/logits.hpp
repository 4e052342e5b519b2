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
    plain = s.softcap == 0 && !s.slopes && !additive;
    scale = split_scale<A>(s.scale, plain ? unit : s.softcap == 0 ? 1 : 1 / s.softcap);
    softcap = A(s.softcap);
    if (s.slopes) slope = A(s.slopes[batch * s.slopes_batch + head]);
    factor = plain ? scale.size : A(unit);
  }
};

// An additive mask's finite numbers stay finite when they are added to a score and multiplied by
// log2 e, so that a row of the lowest number is uniform.
template <class A, class T> FANANO_FN A addend(T x) {
  using Wide = std::conditional_t<std::is_same_v<T, double>, double, A>;
  constexpr Wide limit = (sizeof(A) == 4 ? Wide(__FLT_MAX__) : Wide(__DBL_MAX__)) / 4;
  Wide y = Wide(number(x));
  y = y < -limit ? -limit : y;
  return A(y > limit && y < infinity<Wide> ? limit : y);
}

// The additive mask of `count` rows and n keys, as [key][row]; rows as in pack().
template <class A, class T>
void load_bias(const T* x, int64_t row, int64_t column, int64_t count, int64_t n, A* bias,
               A* rows) {
  auto fill = [&](int64_t i, A* to) {
    const T* from = x + i * row;
    for (int64_t j = 0; j < n; ++j) to[j] = addend<A>(from[j * column]);
  };
  if (row != 0) return pack(count, n, fill, A(1), bias, rows);
  fill(0, rows);
  for (int64_t j = 0; j < n; ++j) Strip<A>::all(rows[j]).store(bias + j * strip_rows<A>);
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

// What logits() adds to the scores of this tile; null without an additive mask.
template <class A>
A* load_bias(const Problem& p, const Block& b, Range r, int64_t j0, int64_t n, A* bias, A* rows) {
  if (!p.mask.data || p.mask_dtype == Dtype::boolean) return nullptr;
  with_type(p.mask_dtype, [&]<class T>() {
    const Tensor& x = b.elements;
    load_bias(static_cast<const T*>(x.data) + r.begin * x.row + j0 * x.column, x.row, x.column,
              r.size(), n, bias, rows);
  });
  return bias;
}

// Everything that a score goes through, for the rows r and the keys [j0, j0 + n). bias holds a
// tile, rows is as in pack().
template <class A>
Strip<A> logits(const ScoreConstants<A>& c, const Problem& p, const Block& b, Range r, int64_t j0,
                int64_t n, const Visible<A>& see, A* bias, A* rows, A* s) {
  // Positions of the rows, relative to the tile: in two parts, so that a distance is rounded once.
  A high[strip_rows<A>], low[strip_rows<A>];
  for (int i = 0; i < strip_rows<A>; ++i) {
    int64_t position = r.begin + i + b.mask.offset - j0;
    high[i] = A(position);
    low[i] = A(position - int64_t(high[i]));
  }
  bias = load_bias(p, b, r, j0, n, bias, rows);
  const Vec<A> power = Vec<A>::all(c.scale.power), size = Vec<A>::all(c.scale.size);
  const Vec<A> minus_slope = Vec<A>::all(-c.slope);
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
      if (bias) y = y + Vec<A>::load(bias + j * strip_rows<A> + lane);
      y = select_bits(seen >> lane, y, Vec<A>::all(-infinity<A>));
      largest.v[m] = max(largest.v[m], y);
      x.v[m] = y;
    }
    x.store(s + j * strip_rows<A>);
  }
  return largest;
}

}  // namespace fanano::FANANO_ISA
