// 32 query rows and 32 keys of one head, all pairs of them: their scores, probabilities and
// gradients, plainly (plain_tile.cuh). Every kernel of backward makes the same ones again, with the
// same bits.
#pragma once

#include "../cpp/math/gradient.hpp"
#include "kept.cuh"
#include "place.cuh"
#include "plain_tile.cuh"
#include "row_terms.cuh"

namespace fanano::cuda {

// f.operator()<Out>(), Out the type of out and dout.
template <class T, class F> __device__ __forceinline__ void with_out(const Problem& p, F f) {
  if (p.out_dtype == p.dtype)
    f.template operator()<T>();
  else
    f.template operator()<accumulator_t<T>>();
}

// What is the same for all tiles of one head.
template <class T> struct PairHead : Head {
  using A = accumulator_t<T>;
  Logits<A> logits;
  Kept kept;
  A kept_factor;

  __device__ PairHead(const Problem& p, int64_t batch, int64_t head)
      : Head(p, batch, head), logits(p, batch, head, log2e<double>), kept(p.dropout, batch, head),
        kept_factor(A(fanano::kept_factor(p.dropout.p))) {}

  // What dropout multiplies a pair's probability by.
  __device__ A dropped(int64_t i, int64_t j) const {
    return !kept.on ? A(1) : kept.keeps(i, j) ? kept_factor : A(0);
  }
};

// Number (r, c) of a thread is row down + 8 r and column 4 across + c of the tile. Rows are query
// rows and columns are keys, or (Turned) the other way round.
template <class T, bool Turned> struct PairTile {
  using A = accumulator_t<T>;
  const Problem& p;
  const PairHead<T>& head;
  int64_t row0, j0;  // the first query row and key

  static __device__ int down(int r) { return int(threadIdx.x) / 8 + 8 * r; }
  static __device__ int across(int c) { return int(threadIdx.x) % 8 * 4 + c; }
  __device__ int64_t row(int r, int c) const { return row0 + (Turned ? across(c) : down(r)); }
  static __device__ int key(int r, int c) { return Turned ? down(r) : across(c); }  // from j0

  __device__ int64_t rows() const { return clamp(head.sequence.queries - row0, 0, plain_rows); }
  __device__ int64_t keys() const { return clamp(head.sequence.keys - j0, 0, plain_keys); }
  __device__ Rows<const T> q() const {
    return rows_of<const T>(p.q, head.batch, head.head, row0, rows());
  }
  __device__ Rows<const T> k() const {
    return rows_of<const T>(p.k, head.batch, head.kv_head, j0, keys());
  }
  __device__ Rows<const T> v() const {
    return rows_of<const T>(p.v, head.batch, head.kv_head, j0, keys());
  }
  template <class Out> __device__ Rows<const Out> dout() const {
    return rows_of<const Out>(p.gradient.dout, head.batch, head.head, row0, rows());
  }

  // score: s += Q Kᵀ with the sign of the scale
  __device__ void score(Operands<A>& smem, A (&s)[4][4]) const {
    const A sign = head.logits.constants.scale.sign;
    if constexpr (Turned)
      multiply(k(), q(), p.shape.dim, sign, smem, s);
    else
      multiply(q(), k(), p.shape.dim, sign, smem, s);
  }
  // dp += dO Vᵀ
  __device__ void score_values(Operands<A>& smem, A (&dp)[4][4]) const {
    with_out<T>(p, [&]<class Out>() {
      if constexpr (Turned)
        multiply(v(), dout<Out>(), p.shape.value_dim, A(1), smem, dp);
      else
        multiply(dout<Out>(), v(), p.shape.value_dim, A(1), smem, dp);
    });
  }

  // mask: the logit of a pair, -inf where it is not seen
  __device__ A logit(A score, int r, int c, bool& seen) const {
    const int64_t i = row(r, c);
    const int j = key(r, c);
    seen = i < head.sequence.queries && head.mask.visible(i, j0 + j);
    return head.logits.logit(score, head.logits.slope(head.mask, i, j0), i, j0, j, seen);
  }
  __device__ A dropped(int r, int c) const { return head.dropped(row(r, c), j0 + key(r, c)); }

  // absorb: a pair's probability, -0 where it is not seen
  __device__ A probability(A score, const RowTerms<A>* terms, int r, int c) const {
    bool seen;
    const A y = logit(score, r, c, seen);
    if (!seen) return not_seen<A>;
    const RowTerms<A> t = terms[row(r, c)];
    return exp2((y - t.m) * head.logits.constants.factor) * t.inverse;
  }
  // What the pair's logit changes by with its score times the scale; by one of 0 nothing does, and
  // no sum may overflow before it is multiplied.
  __device__ A slope(A score) const {
    const ScoreConstants<A>& constants = head.logits.constants;
    if (constants.scale.sign == 0) return 0;
    if (constants.softcap == 0) return 1;
    const A y = score * constants.scale.power * constants.scale.size;
    return softcap_slope(exp(A(-2) * (y < 0 ? -y : y)), A(1));
  }
  // The gradient of the logit, -0 where the pair is not seen and nowhere else.
  __device__ A gradient(A probability, A dp, const RowTerms<A>* terms, int r, int c) const {
    if (!is_seen(probability)) return not_seen<A>;
    const A delta = terms[row(r, c)].delta;
    return logit_gradient(probability, dp * dropped(r, c), delta) + A(0);
  }
};

// Numbers of all pairs of a tile, each of which stands where its thread finds it.
template <class A> using PairNumbers = VectorRow<A, plain_keys>[plain_rows];
template <class A> __device__ __forceinline__ A& number_of(PairNumbers<A>& smem, int r, int c) {
  const int down = int(threadIdx.x) / 8 + 8 * r, across = int(threadIdx.x) % 8 * 4 + c;
  return smem[down][across / Vector<A>::width].x[across % Vector<A>::width];
}

// f(r, c) for all numbers of a thread.
template <class F> __device__ __forceinline__ void for_pairs(F f) {
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int c = 0; c < 4; ++c) f(r, c);
}

}  // namespace fanano::cuda
