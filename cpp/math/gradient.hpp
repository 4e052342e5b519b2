// The derivative of one logit, and of the softmax that takes it: FlashAttention's backward, for one
// pair of a query and a key.
//
//   p      the pair's probability, e^(logit - lse)
//   dp     dout . v: what the loss gains where p grows
//   delta  the row's sum of p dp over its keys, which is dout . out, minus dlse: the derivative of
//          lse by a logit is p itself, so that dlse joins here and nowhere else
//
// Dao et al. 2022, algorithm 4; delta is its D. T is a number or a vector of them.
#pragma once

#include "numbers.hpp"

namespace fanano {

// ds = p (dp - delta): the derivative by the logit, that is, by an additive mask's element.
template <class T> FANANO_FN T logit_gradient(T p, T dp, T delta) { return p * (dp - delta); }

// softcap * tanh(y) changes by 1 - tanh^2 where its argument times softcap does. With e = e^-2|y|
// that is 4 e / (1 + e)^2, which keeps its digits where tanh is nearly 1.
template <class T> FANANO_FN T softcap_slope(T e, T one) {
  T sum = one + e;
  return (e + e + e + e) / (sum * sum);
}

}  // namespace fanano
