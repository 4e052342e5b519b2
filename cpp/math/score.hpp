// From the raw product q.k to the logit that the softmax takes.
//
// A logit is scale * q.k, in log2 units when it is to be the exponent of 2. The factor may multiply
// q, once per query, or the score, once per pair. In q it is free, but q times a large or tiny
// factor may overflow or lose digits although the product with k would not; so only harmless
// factors go there. The others are two, so that no finite scale is too large or too small for T.
#pragma once

#include "numbers.hpp"

namespace fanano {

template <class T> struct ScoreFactors {
  T first = 1, second = 1;
  FANANO_FN bool one() const { return first == 1 && second == 1; }
};

template <class T> struct ScaleSplit {
  T in_query = 1;
  ScoreFactors<T> in_score;
};

// Their product is scale * unit. When the first overflows a score the logit is out of range anyway.
template <class T> FANANO_FN ScoreFactors<T> score_factors(double scale, double unit = 1) {
  constexpr double largest = sizeof(T) == 4 ? double(__FLT_MAX__) : __DBL_MAX__;
  double size = scale < 0 ? -scale : scale;
  double first = size > 0x1p100 ? 0x1p100 : size < 0x1p-100 ? 0x1p-100 : 1;
  double second = scale / first * unit;
  second = second > largest ? largest : second < -largest ? -largest : second;
  return {T(first), T(second)};
}

// For logits in log2 units.
template <class T> FANANO_FN ScaleSplit<T> split_scale(double scale) {
  double factor = scale * log2e<double>, size = factor < 0 ? -factor : factor;
  if (size == 0 || (size >= 0x1p-20 && size <= 1)) return {T(factor), {}};
  return {T(1), score_factors<T>(scale, log2e<double>)};
}

}  // namespace fanano
