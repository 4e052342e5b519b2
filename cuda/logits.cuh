// From raw scores to logits, for a pair of a query row and a key: what cpp/math/score.hpp says, in
// its order. A: the accumulator.
#pragma once

#include "../cpp/math/score.hpp"
#include "numbers.cuh"
#include "ptx/rcp.cuh"

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
    const E x = static_cast<const E*>(data)[i * row + j * column];
    if constexpr (sizeof(E) == 1)
      return x ? A(0) : -infinity<A>;
    else
      return clamp_finite(number(x), most_added<A>);
  }

 private:
  // A double's finite numbers may be infinite as floats.
  template <class T, class A> static __device__ A clamp_finite(T x, A most) {
    const bool infinite = x == infinity<T> || x == -infinity<T>;
    return infinite || x != x ? A(x) : x > most ? most : x < -most ? -most : A(x);
  }
};

// tanh x = t / (t + 2) with t = e^2x - 1 = 2^n (2^f - 1) + (2^n - 1), which loses no digits of a
// small x; 2^f - 1 is cpp/cpu/exp2.hpp's. From 10 on tanh is 1 to the last place.
__device__ __forceinline__ float tanh(float x) {
  constexpr float magic = 0x1.8p23f, unit = 2 * log2e<float>;
  constexpr float c[] = {0x1.41fbbcp-13f, 0x1.5f3e52p-10f, 0x1.3b2d4cp-7f,
                         0x1.c6aee8p-5f,  0x1.ebfbdcp-3f,  0x1.62e430p-1f};
  x = x > 10 ? 10 : x < -10 ? -10 : x;
  const float shifted = __fmaf_rn(x, unit, magic), f = __fmaf_rn(x, unit, magic - shifted);
  const float power = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
  float slope = c[0];
#pragma unroll
  for (int k = 1; k < 6; ++k) slope = __fmaf_rn(slope, f, c[k]);
  const float t = __fmaf_rn(power, slope * f, power - 1), inverse = ptx::rcp(t + 2);
  const float y = t * inverse;
  return __fmaf_rn(__fmaf_rn(-y, t + 2, t), inverse, y);  // a division's last step
}

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
