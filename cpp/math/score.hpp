// From the raw product q.k to the logit that the softmax takes.
//
// A logit is scale * q.k, in log2 units when it is to be the exponent of 2. Only the sign of the
// scale goes into q, for that is exact. Its size multiplies the score where the row's maximum is
// subtracted, in one fused multiply-add with one rounding. Scales so far out that a finite score
// times their size would leave the range of T are two factors, the first a power of two.
#pragma once

#include "mask.hpp"
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

// The constants of one head. Where `plain`, nothing but the scale is to be done, and logits are
// what they should be only after a product with `factor`; else they are, but for their unit.
template <class T> struct ScoreConstants {
  bool plain;
  Scale<T> scale;    // to the argument of tanh where there is a softcap
  T softcap = 0;     // 0: none
  double slope = 0;  // of ALiBi
  T factor;          // scale.size, or the unit alone

  // added: whether a slope or an additive mask is. unit: log2 e for logits that will be exponents
  // of 2.
  FANANO_FN ScoreConstants(double scale_, double softcap_, bool added, double slope_, double unit) {
    double cap = softcap_in_range<T>(softcap_);
    plain = cap == 0 && !added;
    scale = split_scale<T>(scale_, plain ? unit : cap == 0 ? 1 : 1 / cap);
    softcap = T(cap), slope = slope_;
    factor = plain ? scale.size : T(unit);
  }
};

// Finite numbers of an additive mask stay finite when they are added to a score and multiplied by
// log2 e, so that a row of the lowest number is uniform.
template <class T>
inline constexpr T most_added = (sizeof(T) == 4 ? T(__FLT_MAX__) : T(__DBL_MAX__)) / 4;

// What ALiBi needs of a row, to subtract slope |p - j|. A slope that would make the bias of the
// row's farthest key infinite is the steepest that does not: every weight is 0 or 1 long before.
// Each row by itself, for its bits must not depend on what others see.
template <class T> struct Slope {
  T high = 0, low = 0;  // position - j0, in two parts, which are exact where a T tells keys apart
  T minus = 0;

  Slope() = default;  // none
  FANANO_FN Slope(double slope, const Mask& mask, int64_t row, int64_t j0) {
    constexpr double limit = (sizeof(T) == 4 ? double(__FLT_MAX__) : __DBL_MAX__) / 8;
    int64_t p = within_64_bits(__int128(row) + mask.offset);
    int64_t from_j0 = within_64_bits(__int128(p) - j0);
    bool far = from_j0 > far_away || from_j0 < -far_away;
    high = T(from_j0);
    low = far ? 0 : T(from_j0 - int64_t(high));
    Range seen = mask.columns(row);
    double before = double(p) - double(seen.begin), after = double(seen.end - 1) - double(p);
    double farthest = before > after ? before : after, steepest = limit;
    if (farthest > 1) steepest /= farthest;
    minus = T(slope > steepest ? -steepest : slope < -steepest ? steepest : -slope);
  }

 private:
  FANANO_FN static int64_t within_64_bits(__int128 x) {
    return int64_t(x < INT64_MIN ? INT64_MIN : x > INT64_MAX ? INT64_MAX : x);
  }
};

}  // namespace fanano
