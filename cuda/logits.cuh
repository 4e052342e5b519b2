// From raw scores to logits, for one pair of a query row and a key: what cpp/math/score.hpp says,
// in its order. A: the accumulator.
#pragma once

#include "../cpp/math/score.hpp"
#include "numbers.cuh"

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

  // What a pair's logit gains: -inf where a boolean mask hides. Finite numbers stay finite.
  template <class A> __device__ A addend(int64_t i, int64_t j) const {
    const int64_t at = i * row + j * column;
    switch (dtype) {
      case Dtype::boolean: return as<uint8_t>()[at] ? A(0) : -infinity<A>;
      case Dtype::float64: return clamp_finite(as<double>()[at], most_added<A>);
      case Dtype::float32: return clamp_finite(A(as<float>()[at]), most_added<A>);
      case Dtype::bfloat16: return clamp_finite(A(number(as<bfloat16>()[at])), most_added<A>);
      default: return A(number(as<float16>()[at]));
    }
  }

 private:
  template <class T> __device__ const T* as() const { return static_cast<const T*>(data); }
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

}  // namespace fanano::cuda
