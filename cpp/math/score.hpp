// From the raw product q.k to the logit that the softmax takes.
//
// A logit is scale * q.k, in log2 units when it is to be the exponent of 2. Only the sign of the
// scale goes into q, for that is exact. Its size multiplies the score where the row's maximum is
// subtracted, in one fused multiply-add with one rounding. Scales so far out that a finite score
// times their size would leave the range of T are two factors, the first a power of two.
#pragma once

#include "numbers.hpp"

namespace fanano {

// scale * unit = sign * power * size; size is positive, and finite.
template <class T> struct Scale { T sign = 1, power = 1, size = 1; };

FANANO_FN double far_out(double x) { return x > 0x1p100 ? 0x1p100 : x < 0x1p-100 ? 0x1p-100 : 1; }

// A scale of 0 makes all logits 0, also where q.k would overflow: its zero goes into q.
template <class T> FANANO_FN Scale<T> split_scale(double scale, double unit = 1) {
  constexpr double largest = sizeof(T) == 4 ? double(__FLT_MAX__) : __DBL_MAX__;
  constexpr double smallest = sizeof(T) == 4 ? double(__FLT_MIN__) : __DBL_MIN__;
  if (scale == 0) return {T(0), T(1), T(unit)};
  double size = scale < 0 ? -scale : scale;
  double power = far_out(size);
  size = size / power * unit;
  if (power == 1) power = far_out(size), size /= power;
  size = size > largest ? largest : size < smallest ? smallest : size;
  return {T(scale < 0 ? -1 : 1), T(power), T(size)};
}

// A softcap beyond the range of T changes no logit that lies 2^13 (double: 2^27) below its end by
// more than a rounding, and is taken for none; one below 2^-100 leaves no logit to speak of.
template <class T> FANANO_FN double softcap_in_range(double softcap) {
  constexpr double largest = sizeof(T) == 4 ? double(__FLT_MAX__) : __DBL_MAX__;
  return softcap > largest ? 0 : softcap > 0 && softcap < 0x1p-100 ? 0x1p-100 : softcap;
}

}  // namespace fanano
