// 2^x, e^x and tanh x of a vector. Own polynomials, so that every machine with the same instruction
// set gives the same bits, and cheap enough to vanish beside the products.
//
// x = n + f with n the nearest integer and f in [-1/2, 1/2]; 2^x = 2^n p(f). The scaling is a
// product, not an addition to the exponent's bits: a NaN stays a NaN.
#pragma once

#include "simd/simd.hpp"

namespace fanano::FANANO_ISA {

// t, what the polynomial is of: f, and f ln 2 for double.
FANANO_FN Vec<float> exp2_step(Vec<float> f) { return f; }
FANANO_FN Vec<double> exp2_step(Vec<double> f) { return f * Vec<double>::all(ln2<double>); }

// (2^f - 1) / t.
template <class T> FANANO_FN Vec<T> exp2_slope(Vec<T> f) {
  Vec<T> t = exp2_step(f), p = Vec<T>::all(exp2_term(T(), 0));
#pragma GCC unroll 16
  for (int k = 1; k < exp2_terms<T>; ++k) p = fma(p, t, Vec<T>::all(exp2_term(T(), k)));
  return p;
}

template <class T> FANANO_FN Vec<T> exp2_fraction(Vec<T> f) {
  return fma(exp2_slope(f), exp2_step(f), Vec<T>::all(1));
}

// 2^x, for the weights of a softmax: x is at most a few tens. Below `lowest`, at least 1 - bias,
// the result is 0, and so is that of -inf: a masked score needs nothing else to weigh exactly
// nothing.
template <class T> FANANO_FN Vec<T> exp2(Vec<T> x, T lowest) {
  Vec<T> shift = Vec<T>::all(magic<T> + bias<T>);
  Vec<T> shifted = x + shift, n = shifted - shift;
  Vec<T> power = exp2_fraction(x - n) * power_of_two(shifted);
  return select_less(x, Vec<T>::all(lowest), Vec<T>::all(0), power);
}

// The same for what ends as bfloat16, from a polynomial for its eight bits.
FANANO_FN Vec<float> exp2_short(Vec<float> x, float lowest, Vec<float> shift) {
  Vec<float> f = fraction_above(x), p = Vec<float>::all(exp2_short_term(0));
  p = fma(p, f, Vec<float>::all(exp2_short_term(1)));
  p = fma(p, f, Vec<float>::all(exp2_short_term(2)));
  p = fma(p, f, shift + Vec<float>::all(exp2_short_term(3))) - shift;
  return scaled_by(p, x, lowest);
}
FANANO_FN Vec<float> exp2_short(Vec<float> x, float lowest) {
  return exp2_short(x, lowest, Vec<float>::all(0));
}

// Rounded to them by the last addition of p(f), f in [0, 1]: between 1 and 2 all bfloat16 are
// equally far apart, and the last place of 2^16 is 2^-7.
FANANO_FN Vec<float> exp2_rounded(Vec<float> x, float lowest) {
  return exp2_short(x, lowest, Vec<float>::all(0x1.8p16f));
}

// 2^(s unit - m) for a whole number m, where the exponent's own rounding would show: the fraction
// is taken from the product once more, after all that is whole has been taken off. m is at most
// exact_exponent, beyond which its distance to another whole number may be rounded.
template <class T> inline constexpr T exact_exponent = magic<T> / T(1.5);
template <class T> FANANO_FN Vec<T> exp2_exactly(Vec<T> s, Vec<T> unit, Vec<T> minus_m, T lowest) {
  Vec<T> x = fma_once(s, unit, minus_m), shift = Vec<T>::all(magic<T> + bias<T>);
  Vec<T> shifted = x + shift, n = shifted - shift;
  Vec<T> power = exp2_fraction(fma_once(s, unit, minus_m - n)) * power_of_two(shifted);
  return select_less(x, Vec<T>::all(lowest), Vec<T>::all(0), power);
}

// e^x for any x, infinite above the range of T, 0 below. The fraction is taken from x in two steps
// whose products are exact (Cody and Waite 1980): x log2 e alone would lose digits of a large x.
// One factor 2 is kept out of 2^n, which reaches one power too few.
template <class T> FANANO_FN Vec<T> exp(Vec<T> x) {
  constexpr T ln2_high = sizeof(T) == 4 ? T(0x1.63p-1) : T(0x1.62e42feep-1);
  constexpr T ln2_low = T(0.693147180559945309417232121458176568L - (long double)ln2_high);
  constexpr T limit = T((bias<T> + 2) * 0.693147180559945309);
  x = min(Vec<T>::all(limit), max(Vec<T>::all(-limit), x));
  Vec<T> shift = Vec<T>::all(magic<T> + bias<T> - 1);
  Vec<T> n = fma(x, Vec<T>::all(log2e<T>), Vec<T>::all(magic<T>)) - Vec<T>::all(magic<T>);
  n = max(Vec<T>::all(T(1 - bias<T>)), n);
  Vec<T> f = fma(n, Vec<T>::all(-ln2_low), fma(n, Vec<T>::all(-ln2_high), x));
  Vec<T> p = exp2_fraction(f * Vec<T>::all(log2e<T>));
  return (p + p) * power_of_two(n + shift);
}

// tanh x = t / (t + 2) with t = e^2x - 1 = 2^n (2^f - 1) + (2^n - 1), which loses no digits of a
// small x. From the limit on tanh is 1 to the last place, and t is finite.
template <class T> FANANO_FN Vec<T> tanh(Vec<T> x) {
  Vec<T> limit = Vec<T>::all(sizeof(T) == 4 ? T(10) : T(20)), unit = Vec<T>::all(2 * log2e<T>);
  x = min(limit, max(Vec<T>::all(0) - limit, x));
  Vec<T> shift = Vec<T>::all(magic<T> + bias<T>), shifted = fma(x, unit, shift);
  Vec<T> f = fma(x, unit, shift - shifted), power = power_of_two(shifted);
  Vec<T> t = fma(power, exp2_slope(f) * exp2_step(f), power - Vec<T>::all(1));
  return t / (t + Vec<T>::all(2));
}

}  // namespace fanano::FANANO_ISA
