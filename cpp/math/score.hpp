// From the raw product q.k to the logit that the softmax takes, in log2 units.
//
// Multiplying by scale * log2 e may happen in q, once per query, or in the score, once per pair. In q
// it is free, but q times a huge or tiny factor may overflow or lose digits although the product with
// k would not; so only harmless factors go there.
#pragma once

#include "numbers.hpp"

namespace fanano {

template <class T> struct ScaleSplit {
  T in_query = 1, in_score = 1;
};

template <class T> FANANO_FN ScaleSplit<T> split_scale(double scale) {
  double factor = scale * log2e<double>;
  double size = factor < 0 ? -factor : factor;
  bool harmless = size == 0 || (size >= 0x1p-20 && size <= 2);
  return harmless ? ScaleSplit<T>{T(factor), T(1)} : ScaleSplit<T>{T(1), T(factor)};
}

}  // namespace fanano
