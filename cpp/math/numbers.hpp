// Numbers: constants at the precision of their type, 16-bit formats, and 2^x and log2 x of our own
// (the C library's differ from machine to machine, and so would our bits).
#pragma once

#include <cstdint>

#include "host_device.hpp"

namespace fanano {

template <class T> inline constexpr T log2e = T(1.44269504088896340735992468100189214L);
template <class T> inline constexpr T ln2 = T(0.693147180559945309417232121458176568L);
template <class T> inline constexpr T infinity = T(__builtin_inf());

// Storage only: arithmetic happens in float.
struct bfloat16 { uint16_t bits; };
struct float16 { uint16_t bits; };

template <class T> struct AccumulatorOf { using type = float; };
template <> struct AccumulatorOf<double> { using type = double; };
template <class T> using accumulator_t = typename AccumulatorOf<T>::type;

FANANO_FN float to_float(bfloat16 x) { return __builtin_bit_cast(float, uint32_t(x.bits) << 16); }

// The fraction and exponent of a half are moved to where a float has them; the product by 2^112
// moves the exponent's bias from 15 to 127 and is exact, for subnormals too.
FANANO_FN float to_float(float16 x) {
  uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13, sign = uint32_t(x.bits & 0x8000) << 16;
  float finite = __builtin_bit_cast(float, magnitude) * 0x1p112f;
  uint32_t special = magnitude | 0x7f800000;  // infinity or NaN, the payload kept
  uint32_t bits = magnitude >= 0x0f800000 ? special : __builtin_bit_cast(uint32_t, finite);
  return __builtin_bit_cast(float, bits | sign);
}

// Round to nearest, ties to even: add half of the last place, less one if that place is even.
FANANO_FN bfloat16 to_bfloat16(float x) {
  uint32_t u = __builtin_bit_cast(uint32_t, x);
  uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16, quiet = (u >> 16) | 0x40;
  return {uint16_t((u & 0x7fffffff) > 0x7f800000 ? quiet : rounded)};
}

// As above with 13 places dropped; below 2^-14 the places dropped grow, and adding 1/2 in float
// arithmetic rounds at 2^-24, the last place of a subnormal half.
FANANO_FN float16 to_float16(float x) {
  uint32_t u = __builtin_bit_cast(uint32_t, x), sign = (u >> 16) & 0x8000,
           magnitude = u & 0x7fffffff;
  uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
  uint32_t subnormal = __builtin_bit_cast(uint32_t, shifted) - 0x3f000000;
  uint32_t nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
  uint32_t bits = magnitude < 0x38800000 ? subnormal : normal;
  bits = magnitude >= 0x477ff000 ? 0x7c00 : bits;  // 65520 and above round to infinity
  bits = magnitude > 0x7f800000 ? nan : bits;
  return {uint16_t(bits | sign)};
}

// log2 of a positive number: x = 2^e f with f in [sqrt(1/2), sqrt(2)), then the series
// ln f = 2 (s + s^3/3 + s^5/5 + ...), s = (f - 1) / (f + 1), |s| <= 0.172: 11 terms reach 2^-53.
FANANO_FN double log2_positive(double x) {
  if (!(x > 0) || x == infinity<double>) return x == 0 ? -infinity<double> : x;
  double scaled = x < 0x1p-1022 ? x * 0x1p54 : x;
  uint64_t u = __builtin_bit_cast(uint64_t, scaled);
  uint64_t above = u - 0x3fe6a09e667f3bcd;  // from sqrt(1/2) up
  int64_t e = int64_t(above) >> 52;
  double f = __builtin_bit_cast(double, u - (uint64_t(e) << 52));
  double s = (f - 1) / (f + 1), z = s * s, sum = 0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * z + 1.0 / k;
  return 2 * s * sum * log2e<double> + double(x < 0x1p-1022 ? e - 54 : e);
}

// 2^x for x <= 0 (and a little above): 2^n 2^f with n the nearest integer, f in [-1/2, 1/2] and the
// Taylor series of 2^f; 13 terms reach 2^-53. NaN gives NaN, -inf gives 0.
FANANO_FN double exp2_nonpositive(double x) {
  if (x < -1022) return 0;
  double shifted = x + 0x1.8p52, n = shifted - 0x1.8p52, t = (x - n) * ln2<double>, sum = 1;
  for (int k = 13; k >= 1; --k) sum = sum * t / k + 1;
  uint64_t low = __builtin_bit_cast(uint64_t, shifted);
  return sum * __builtin_bit_cast(double, (low + 1023) << 52);
}

FANANO_FN double exp_nonpositive(double x) { return exp2_nonpositive(x * log2e<double>); }

}  // namespace fanano
