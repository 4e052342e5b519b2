// What the products of a tile are made from: numbers of the accumulator's type, or pairs of
// bfloat16 where one instruction adds both their products to a float (`bf16_dot`).
//
// That instruction takes subnormal numbers for zeros. Subnormal products reach no logit where the
// scale is not huge, and huge scales do without (`bears_pairs`); subnormal factors do count as
// zeros, which shows where the other factor is near the end of the range. Sums of values are mended
// (special_values.hpp); of gradients, dq alone: what P, dP or dS times anything has below 2^-126 is
// lost to the others.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "convert.hpp"
#include "typed.hpp"

namespace fanano::FANANO_ISA {

// T: what stands in memory; `together` of them meet in a lane, neighbours in memory.
template <class T> struct Terms {
  static constexpr int together = 1;
  static FANANO_FN Vec<T> load(const T* p) { return Vec<T>::load(p); }
  static FANANO_FN Vec<T> all(const T* p) { return Vec<T>::all(*p); }
};

template <> struct Terms<bfloat16> {
  static constexpr int together = 2;
  static FANANO_FN Pairs load(const bfloat16* p) {
    return Pairs::load(reinterpret_cast<const uint32_t*>(p));
  }
  static FANANO_FN Pairs all(const bfloat16* p) {
    uint32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return Pairs::all(pair);
  }
};

template <class T> inline constexpr int together = Terms<T>::together;

// Whether products are made of whole tiles (amx.hpp), and of how many terms at once: weights and q
// are zeros up to there.
template <class T> inline constexpr bool tiled = bf16_tiles && std::is_same_v<T, bfloat16>;
template <class T> inline constexpr int at_once = tiled<T> ? 32 : together<T>;

// What has to be there while products are made.
template <class T> struct Ready {};

// The terms of prefill, and of the scores and dP of its gradients, for inputs of type T. Other
// numbers of up to 32 bits are sums of bfloat16, exactly, of which tiles are made in less time than
// products of floats (amx_parts.hpp).
template <class T>
using terms_t = std::conditional_t<(bf16_dot && std::is_same_v<T, bfloat16>) ||
                                       (bf16_tiles && !std::is_same_v<T, double>),
                                   bfloat16, accumulator_t<T>>;

// How many terms a number of type T is the sum of.
template <class T, class E>
inline constexpr int parts = !std::is_same_v<E, bfloat16>  ? 1
                             : std::is_same_v<T, float>    ? 3
                             : std::is_same_v<T, bfloat16> ? 1
                                                           : 2;

// What dq, dk and dv are summed of. Parts of floats would be hardly faster there, and what is below
// 2^-109 has none.
template <class T, class E> using summed_t = std::conditional_t<std::is_same_v<T, float>, float, E>;

// Scales with which a product that is subnormal does not reach a logit.
FANANO_FN bool bears_pairs(double scale) { return scale <= 0x1p20 && scale >= -0x1p20; }

// Floats whose rows are shorter on average are not taken in parts: making them takes what it saves.
inline constexpr int64_t least_columns = 33;

// Whether a problem's products are of pairs. Results to be merged are not rounded, and nor is what
// they are made from.
FANANO_FN bool takes_pairs(const Problem& p) {
  bool has = false;
  with_type(p.dtype, [&]<class T>() { has = !std::is_same_v<terms_t<T>, accumulator_t<T>>; });
  if (p.dtype == Dtype::float32) has &= p.shape.dim + p.shape.value_dim >= 2 * least_columns;
  return has && p.out_dtype == p.dtype && bears_pairs(p.score.scale);
}

// f<T, E>(), E the terms of this problem's products: in a row that shares another's kernels of
// pairs alone, for all others are the same.
template <class F> FANANO_FN void with_terms(const Problem& p, F f) {
  with_type(p.dtype, [&]<class T>() {
    using A = accumulator_t<T>;
    if constexpr (!std::is_same_v<terms_t<T>, A>)
      if (takes_pairs(p)) return f.template operator()<T, terms_t<T>>();
    if constexpr (!shares_kernels) f.template operator()<T, A>();
  });
}

// f<Out>(), Out the type of out and dout.
template <class T, class E, class F> FANANO_FN void with_out(const Problem& p, F f) {
  if constexpr (std::is_same_v<E, accumulator_t<T>>)
    if (p.out_dtype != p.dtype) return f.template operator()<accumulator_t<T>>();
  f.template operator()<T>();
}

// n numbers, `stride` apart, as terms.
template <class E, class T>
FANANO_FN void copy_terms(const T* x, int64_t stride, E* to, int64_t n) {
  if constexpr (!std::is_same_v<E, T>)
    widen(x, stride, to, n);
  else if (stride == 1)
    std::copy_n(x, n, to);  // of nothing, too, which may be nowhere
  else
    for (int64_t i = 0; i < n; ++i) to[i] = x[i * stride];
}

}  // namespace fanano::FANANO_ISA
