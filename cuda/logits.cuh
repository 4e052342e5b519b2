// From raw scores to logits, for one pair of a query row and a key: what cpp/math/score.hpp says,
// in its order. A: the accumulator.
#pragma once

#include "../cpp/math/score.hpp"
#include "exp2.cuh"

namespace fanano::cuda {

// The caller's mask of one head.
struct Elements {
  const void* data = nullptr;  // null: none
  Dtype dtype = Dtype::boolean;
  int64_t row = 0, column = 0;  // strides

  __device__ Elements(const Problem& p, int64_t batch, int64_t head)
      : dtype(p.mask_dtype), row(p.mask.row), column(p.mask.column) {
    if (p.mask.data)
      data = static_cast<const char*>(p.mask.data) +
             (batch * p.mask.batch + head * p.mask.head) * size_of(dtype);
  }

  __device__ bool additive() const { return data && dtype != Dtype::boolean; }

  // What a pair's logit gains: -inf where a boolean mask hides. Finite numbers stay finite.
  template <class A> __device__ A addend(int64_t i, int64_t j) const {
    return with_type([&]<class E>() { return addend_as<E, A>(i, j); });
  }

  // f.operator()<E>() for the type of the elements, uint8_t of a boolean mask: for loops that shall
  // not ask for each of them.
  template <class F> __device__ auto with_type(F f) const {
    switch (dtype) {
      case Dtype::boolean: return f.template operator()<uint8_t>();
      case Dtype::float64: return f.template operator()<double>();
      case Dtype::float32: return f.template operator()<float>();
      case Dtype::bfloat16: return f.template operator()<bfloat16>();
      default: return f.template operator()<float16>();
    }
  }
  template <class E, class A> __device__ A addend_as(int64_t i, int64_t j) const {
    return addend_at<E, A>(i * row, j);
  }
  // Key j of the row that begins there.
  template <class E, class A> __device__ A addend_at(int64_t begin, int64_t j) const {
    const E x = static_cast<const E*>(data)[begin + j * column];
    if constexpr (sizeof(E) == 1)
      return x ? A(0) : -infinity<A>;
    else
      return clamp_finite(number(x), most_added<A>);
  }

  template <class A> __device__ bool hides(int64_t i, int64_t j) const {
    return data && addend<A>(i, j) == -infinity<A>;
  }

 private:
  // A double's finite numbers may be infinite as floats.
  template <class T, class A> static __device__ A clamp_finite(T x, A most) {
    const bool infinite = x == infinity<T> || x == -infinity<T>;
    return infinite || x != x ? A(x) : x > most ? most : x < -most ? -most : A(x);
  }
};

// Of one head.
template <class A>
__device__ ScoreConstants<A> score_constants(const Problem& p, int64_t batch, int64_t head,
                                             double unit) {
  const Score& s = p.score;
  const bool additive = p.mask.data && p.mask_dtype != Dtype::boolean;
  const double slope = s.slopes ? s.slopes[batch * s.slopes_batch + head] : 0;
  return {s.scale, s.softcap, s.slopes || additive, slope, unit};
}

// A weight of -0 says that the pair is not seen; one that is seen weighs +0 or more, or is NaN.
template <class A> inline constexpr A not_seen = A(-0.0);
__device__ __forceinline__ bool is_seen(float p) { return __float_as_uint(p) != 0x80000000u; }
__device__ __forceinline__ bool is_seen(double p) { return __double_as_longlong(p) != INT64_MIN; }

// What becomes of the scores of one head. Unit: as in ScoreConstants, and logits are in that unit
// once multiplied by its factor.
template <class A> struct Logits {
  ScoreConstants<A> constants;
  Elements elements;

  __device__ Logits(const Problem& p, int64_t batch, int64_t head, double unit)
      : constants(score_constants<A>(p, batch, head, unit)), elements(p, batch, head) {}

  // What ALiBi needs of a row, where it is on.
  __device__ Slope<A> slope(const Mask& mask, int64_t row, int64_t j0) const {
    if (constants.slope == 0) return {};
    return {constants.slope, mask, row, j0};
  }

  // The logit of row i and key j0 + j. Seen: by its position; false afterwards where the caller's
  // mask hides it. What is not seen is -inf, by selection.
  __device__ __forceinline__ A logit(A score, const Slope<A>& slope, int64_t i, int64_t j0, int j,
                                     bool& seen) const {
    const ScoreConstants<A>& c = constants;
    A y = score * c.scale.power;
    if (!c.plain) {
      y *= c.scale.size;
      if (c.softcap != 0) y = tanh(y) * c.softcap;
      if (c.slope != 0) {
        const A distance = slope.high + (slope.low - A(j));
        y = fma(distance < 0 ? -distance : distance, slope.minus, y);
      }
    }
    if (elements.data && seen) {
      const A more = elements.addend<A>(i, j0 + j);
      seen = more != -infinity<A>;
      y += more;
    }
    return seen ? y : -infinity<A>;
  }
};

}  // namespace fanano::cuda
