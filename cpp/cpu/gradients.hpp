// What the stages of backward share: the numbers of each row, query rows made ready for the keys to
// pass, and the probabilities and gradients of one strip and tile.
//
// Lanes are query rows, as in the forward pass: a tile's logits are made by the same verbs, in the
// same order, and meet the lse that came of them.
#pragma once

#include <algorithm>

#include "../math/gradient.hpp"
#include "absorb.hpp"
#include "block.hpp"
#include "kept.hpp"
#include "logits.hpp"
#include "special_values.hpp"

namespace fanano::FANANO_ISA {

// Of all rows, (batch, heads, queries), in the workspace: p = 2^(logit - m) weight, with m a whole
// number in log2 units, and ds = p (dp - delta).
template <class A> struct RowNumbers {
  A *m, *weight, *delta;

  RowNumbers(void* workspace, const Shape& s, int64_t& bytes) {
    Arena arena{static_cast<char*>(workspace)};
    int64_t rows = s.batch * s.heads * s.queries;
    m = arena.take<A>(rows), weight = arena.take<A>(rows), delta = arena.take<A>(rows);
    bytes = arena.used;
  }
  RowNumbers(void* workspace, const Shape& s) {
    int64_t bytes;
    *this = RowNumbers(workspace, s, bytes);
  }
};

FANANO_FN int64_t row_index(const Shape& s, const Block& b, int64_t row) {
  return (b.batch * s.heads + b.head) * s.queries + row;
}

// A strip of query rows.
template <class A, class E> struct Queries {
  Range rows;
  E *q, *dout;  // packed; q with the sign of the scale
  Strip<A> minus_m, weight, delta;
  bool large;  // an m beyond exact_exponent
};

// Fills in all but `dout`; the numbers of rows that are missing are 0. rows is as in pack().
template <class T, class A, class E>
void load_queries(const Problem& p, const Block& b, Range r, const RowNumbers<A>& numbers, A sign,
                  Queries<A, E>& x, A* rows) {
  x.rows = r;
  pack(at<const T>(p.q, b.batch, b.head, r.begin), p.q.row, p.q.column, r.size(), p.shape.dim, sign,
       x.q, reinterpret_cast<E*>(rows));
  A minus_m[strip_rows<A>] = {}, weight[strip_rows<A>] = {}, delta[strip_rows<A>] = {};
  x.large = false;
  for (int64_t i = 0; i < r.size(); ++i) {
    int64_t row = row_index(p.shape, b, r.begin + i);
    minus_m[i] = -numbers.m[row], weight[i] = numbers.weight[row], delta[i] = numbers.delta[row];
    x.large |= minus_m[i] > exact_exponent<A> || minus_m[i] < -exact_exponent<A>;
  }
  x.minus_m = Strip<A>::load(minus_m), x.weight = Strip<A>::load(weight);
  x.delta = Strip<A>::load(delta);
}

template <class T, class E, class A>
void load_dout(const Problem& p, const Block& b, Range r, E* dout, A* rows) {
  with_out<T, E>(p, [&]<class Out>() {
    const Tensor& t = p.gradient.dout;
    pack(at<const Out>(t, b.batch, b.head, r.begin), t.row, t.column, r.size(), p.shape.value_dim,
         A(1), dout, reinterpret_cast<E*>(rows));
  });
}

// Whether logits change by anything but 1 with their score times the scale; and of raw scores s by
// what, into slope: by what softcap * tanh does, by 1 where it is too large to be any
// (softcap_in_range). By a scale of 0 nothing changes, and no sum may overflow before it is
// multiplied.
FANANO_FN bool has_slopes(const Score& score) { return score.softcap != 0 || score.scale == 0; }

template <class A> void score_slopes(const ScoreConstants<A>& c, int64_t n, const A* s, A* slope) {
  if (c.scale.sign == 0 || c.softcap == 0)
    return void(std::fill_n(slope, n * strip_rows<A>, A(c.scale.sign == 0 ? 0 : 1)));
  const Vec<A> unit = Vec<A>::all(c.scale.size), power = Vec<A>::all(c.scale.power);
  for (int64_t at = 0; at < n * strip_rows<A>; at += Vec<A>::width) {
    Vec<A> y = Vec<A>::load(s + at) * power * unit, size = max(y, Vec<A>::all(0) - y);
    Vec<A> root = exp(Vec<A>::all(0) - size);  // of e^-2|y|, which exp() would say is 0 too early
    softcap_slope(root * root, Vec<A>::all(1)).store(slope + at);
  }
}

// P and dS of a strip and tile. First s and dp are there, as numbers; of these are made p and ds,
// [key][row], for products with rows, and of_keys, dS as weights are, for those with keys. Parts
// stand one behind the other.
template <class A, class O, int Parts = 1> struct Pieces {
  A *s, *dp;
  O *p, *ds, *of_keys;
  static constexpr int64_t part = tile_keys * strip_rows<A>;
};
template <class A> FANANO_FN Pieces<A, A> in_place(A* s, A* dp) { return {s, dp, s, dp, dp}; }

// s becomes P, without what dropout drops, and dp the gradient of the scores, 0 both where a row
// does not see a key or is not there: by selection, for either may be anything. power(s, i) is
// 2^(s - m), i the vector; kept as Kept::look() has it, or null.
template <class A, class E, class O, int Parts, class F>
FANANO_FN void weigh(const Queries<A, E>& x, int64_t n, const Visible<A>& see, const A* slope,
                     const uint64_t* kept, A factor, const Pieces<A, O, Parts>& to, F power) {
  constexpr int strip = strip_rows<A>;
  const Vec<A> none = Vec<A>::all(0);
  const uint64_t there = first_bits(x.rows.size());
  const bool all = see.whole && x.rows.size() == strip && n % together<O> == 0;
  struct Pair { Vec<A> p, ds; };
  auto make = [&](int64_t j, int m) {
    int64_t lane = m * Vec<A>::width, at = j * strip + lane;
    Vec<A> p = power(Vec<A>::load(to.s + at), m) * x.weight.v[m];
    Vec<A> of_p = Vec<A>::load(to.dp + at), d = p;
    if (kept) {
      Vec<A> z = select_bits(kept[j] >> lane, Vec<A>::all(factor), none);
      of_p = of_p * z, d = p * z;
    }
    Vec<A> g = logit_gradient(p, of_p, x.delta.v[m]);
    if (slope) g = g * Vec<A>::load(slope + at);
    if (!all) {
      uint64_t rows = j == n ? 0 : see.whole ? there : see.rows[j] & there;
      d = select_bits(rows >> lane, d, none), g = select_bits(rows >> lane, g, none);
    }
    return Pair{d, g};
  };
  for (int64_t j = 0; j < n; j += together<O>) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      int64_t at = j * strip + m * Vec<A>::width;
      Pair first = make(j, m);
      if constexpr (together<O> == 1) {
        first.p.store(to.p + at), first.ds.store(to.ds + at);
      } else {
        Pair second = make(j + 1, m);
        int64_t pair = j * strip + m * Brains::width;
        for (int64_t part = 0; part < Parts * to.part; part += to.part) {
          Brains p = narrowed(first.p, second.p), ds = narrowed(first.ds, second.ds);
          store_halves(p, to.p + part + at, to.p + part + at + strip);
          store_halves(ds, to.ds + part + at, to.ds + part + at + strip);
          side_by_side(ds).store(reinterpret_cast<uint16_t*>(to.of_keys + part + pair));
          auto take_off = [](Vec<A>& x, Vec<A>& y, Brains stored) {
            const Pairs both{(Pairs::Native)side_by_side(stored).v};
            x = x - first_of(both), y = y - second_of(both);
          };
          if constexpr (Parts > 1)
            take_off(first.p, second.p, p), take_off(first.ds, second.ds, ds);
        }
      }
    }
  }
  // Weights have zeros up to a whole number of terms.
  int64_t end = round_up(n, at_once<O>) * strip;
  for (int64_t i = round_up(n, together<O>) * strip; i < end; ++i)
    for (int k = 0; k < Parts; ++k) assign(to.of_keys[k * to.part + i], 0);
}

// Keys and values [j0, j0 + n).
template <class E, class O = E> struct Tile {
  int64_t j0, n;
  Operand<E> k, v;
  Operand<O> k_values{};                           // as values, for dq
  enum { unknown, no, yes } ordinary_k = unknown;  // until somebody has to know

  bool ordinary_keys(int64_t dim) {
    if (ordinary_k == unknown) ordinary_k = ordinary(k_values, n, dim) ? yes : no;
    return ordinary_k == yes;
  }
};

template <class T, class O, class E>
Tile<E, O> load_tile(const Problem& p, const Block& b, int64_t j0, int64_t n, E* k, E* v) {
  return {
      j0, n, load(at<const T>(p.k, b.batch, b.kv_head, j0), p.k.row, p.k.column, n, p.shape.dim, k),
      load(at<const T>(p.v, b.batch, b.kv_head, j0), p.v.row, p.v.column, n, p.shape.value_dim, v)};
}

// P and the gradients of one strip and tile, with what they need on the way.
template <class A> struct Differentiator {
  const Problem& p;
  const Block& b;
  ScoreConstants<A> constants;
  A* slope;

  // For the tile's first n keys; false where no row sees any of them: nothing is written then.
  // of_scores: dp becomes the gradient of k q times the scale, else that of the logit.
  template <class E, class Summed, class O, int Parts>
  bool operator()(const Queries<A, E>& x, const Tile<E, Summed>& tile, int64_t n, bool of_scores,
                  Visible<A>& see, const Pieces<A, O, Parts>& to) const {
    A *s = to.s, *dp = to.dp;
    const ScoreConstants<A>& c = constants;
    look(b.mask, b.elements, x.rows, tile.j0, n, see);
    if (see.none || (b.elements.additive() && hides_all(b.elements, x.rows, tile.j0, n)))
      return false;

    // score
    multiply(x.q, tile.k, n, p.shape.dim, s);
    const A* slopes = of_scores && has_slopes(p.score) ? slope : nullptr;
    if (slopes) score_slopes(c, n, s, slope);
    if (!c.plain)
      logits(c, b.mask, b.elements, x.rows, tile.j0, see, n, s);
    else if (c.scale.power != 1)
      hide(see, n, c.scale.power, s);
    for (int64_t i = 0; p.shape.value_dim == 0 && i < n * strip_rows<A>; ++i) dp[i] = 0;
    multiply(x.dout, tile.v, n, p.shape.value_dim, dp);

    // absorb
    const Vec<A> unit = Vec<A>::all(c.factor);
    const Weights<A> limits = weights(A(0));
    auto power = [&](Vec<A> y, int m) {
      if constexpr (together<O> == 1 || Parts > 1)
        return exp2_exactly(y, unit, x.minus_m.v[m], limits.lowest);
      else
        return exp2_short(exponent(y, unit, x.minus_m.v[m]), limits.lowest);
    };
    auto carefully = [&](Vec<A> y, int m) {  // row by row: neighbours must not matter
      Vec<A> minus_m = x.minus_m.v[m], size = max(minus_m, Vec<A>::all(0) - minus_m);
      Vec<A> of_large = exp2(careful_exponent(y, unit, minus_m, limits.least), limits.lowest);
      return select_less(Vec<A>::all(exact_exponent<A>), size, of_large, power(y, m));
    };
    const Kept<A> dropout(p, b);
    uint64_t words[tile_keys];
    if (dropout.on) dropout.look(x.rows.begin, tile.j0, n, words);
    const uint64_t* kept = dropout.on ? words : nullptr;
    if (x.large)
      weigh(x, n, see, slopes, kept, dropout.factor, to, carefully);
    else
      weigh(x, n, see, slopes, kept, dropout.factor, to, power);
    return true;
  }
};

// Bytes of scratch of the stages beside the one of dk, dv and dq.
int64_t row_scratch(const Problem&);
int64_t bias_scratch(const Problem&);

}  // namespace fanano::FANANO_ISA
