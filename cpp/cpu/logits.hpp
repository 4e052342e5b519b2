// From raw scores to logits, for one strip and tile: what math/score.hpp says of one pair, in its
// order. Without softcap, slopes and an additive mask the scale waits until the exponent, and all
// that is left is to hide what a row does not see.
#pragma once

#include <algorithm>

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

// A finite element of an additive mask that is too large (most_added) becomes less. biased() has
// the other end of the range.
template <class A> FANANO_FN Vec<A> clamp_above(Vec<A> x) {
  return select_equal(x, Vec<A>::all(infinity<A>), x, min(Vec<A>::all(most_added<A>), x));
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

// A square of an additive mask, [key][row]: at most a vector of rows, n keys from j0 on, at most as
// many. What is missing is 0.
template <class A>
void load_square(const Elements& x, Range rows, int64_t j0, int64_t n,
                 Vec<A> (&square)[Vec<A>::width]) {
  constexpr int w = Vec<A>::width;
  with_type(x.dtype, [&]<class T>() {
    constexpr bool direct = std::is_same_v<decltype(load_wide((const T*)nullptr)), Vec<A>>;
    const T* first = x.at<T>(rows.begin, j0);
    if (x.row == 0) {
      A row[w] = {};
      load_addends(first, x.column, row, n);
#pragma GCC unroll 16
      for (int j = 0; j < w; ++j) square[j] = Vec<A>::all(row[j]);
      return;
    }
    bool loaded = false;
    if constexpr (direct)
      if (x.column == 1 && rows.size() == w && n == w) {
        loaded = true;
#pragma GCC unroll 16
        for (int64_t i = 0; i < w; ++i) {
          prefetch(first + (i + strip_rows<A>)*x.row, n);
          square[i] = load_wide(first + i * x.row);
        }
      }
    if (!loaded) {
      A row[w][w] = {};
      for (int64_t i = 0; i < rows.size(); ++i)
        load_addends(first + i * x.row, x.column, row[i], n);
      for (int i = 0; i < w; ++i) square[i] = Vec<A>::load(row[i]);
    }
    transpose(square);
  });
  const Vec<A> most = Vec<A>::all(most_added<A>);
  Vec<A> largest = most;
  for (const Vec<A>& x : square) largest = max(x, largest);
  if (any_less(most, largest))
    for (Vec<A>& x : square) x = clamp_above(x);
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

// The rows or keys, by lanes, that elements of an additive mask hide; and y + these elements.
template <class A> FANANO_FN uint64_t hidden_by(Vec<A> more) {
  return equal_bits(more, Vec<A>::all(-infinity<A>));
}
template <class A> FANANO_FN Vec<A> biased(Vec<A> y, Vec<A> more) {
  Vec<A> sum = y + max(Vec<A>::all(-most_added<A>), more);
  return select_bits(hidden_by(more), Vec<A>::all(-infinity<A>), sum);
}

// Everything that a score goes through, for these rows and the keys [j0, j0 + n), a vector of rows
// after another. `see` learns what an additive mask hides, but for whether that is all.
template <class A>
Strip<A> logits(const ScoreConstants<A>& c, const Mask& mask, const Elements& elements, Range rows,
                int64_t j0, Visible<A>& see, int64_t n, A* s) {
  constexpr int w = Vec<A>::width;
  const Vec<A> hidden = Vec<A>::all(-infinity<A>);
  Strip<A> largest = Strip<A>::all(-infinity<A>);
  const bool whole = see.whole;
  uint64_t hides = 0;
  if (elements.additive() && whole) std::fill_n(see.rows, n, ~uint64_t(0));
  auto make = [&]<bool Capped, bool Sloped, bool Added>(int m) {
    const int64_t lane = m * w;
    A high[w], low[w], minus[w];
    for (int i = 0; Sloped && i < w; ++i) {
      Slope<A> slope(c.slope, mask, rows.begin + lane + i, j0);
      high[i] = slope.high, low[i] = slope.low, minus[i] = slope.minus;
    }
    Vec<A> most = hidden, added[w];
    for (int64_t first = 0; first < n; first += w) {
      const int64_t end = n - first < w ? n : first + w;
      if constexpr (Added) {
        Range here{rows.begin + lane, clamp(rows.begin + lane + w, rows.begin + lane, rows.end)};
        load_square(elements, here, j0 + first, end - first, added);
      }
      for (int64_t j = first; j < end; ++j) {
        Vec<A> y = capped<Capped>(c, Vec<A>::load(s + j * strip_rows<A> + lane));
        if constexpr (Sloped)
          y = sloped(Vec<A>::load(high), Vec<A>::load(low), Vec<A>::load(minus), Vec<A>::all(A(j)),
                     y);
        if constexpr (Added) {
          uint64_t here = hidden_by(added[j - first]);
          y = biased(y, added[j - first]);
          hides |= here, see.rows[j] &= ~(here << lane);
        }
        if (!whole) y = select_bits(see.rows[j] >> lane, y, hidden);
        most = max(most, y);
        y.store(s + j * strip_rows<A> + lane);
      }
    }
    largest.v[m] = most;
  };
  with_flags(
      [&]<bool... Flags>() {
        for (int m = 0; m < M; ++m) make.template operator()<Flags...>(m);
      },
      c.softcap != 0, c.slope != 0, elements.additive());
  see.whole = whole && hides == 0;
  return largest;
}

}  // namespace fanano::FANANO_ISA
