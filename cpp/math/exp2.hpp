// 2^x: the constants of an own polynomial, from which cpp/cpu/exp2.hpp makes vectors and
// cuda/exp2.cuh numbers of powers. x = n + f with n the nearest integer and f in [-1/2, 1/2].
#pragma once

#include "host_device.hpp"

namespace fanano {

// Adding 1.5 * 2^(mantissa bits) rounds to an integer, to nearest, and leaves it in the low bits.
template <class T> inline constexpr T magic = sizeof(T) == 4 ? T(0x1.8p23) : T(0x1.8p52);
template <class T> inline constexpr int mantissa = sizeof(T) == 4 ? 23 : 52;
template <class T> inline constexpr int bias = sizeof(T) == 4 ? 127 : 1023;

// (2^f - 1) / t, coefficient k of t from the highest power down. float: t is f; minimax in the
// relative error of 2^f with 2^0 = 1, degree 6, 2.0e-9, so that rounding decides. double: t is f ln
// 2; Taylor series, degree 13, 2^-56.
template <class T> inline constexpr int exp2_terms = sizeof(T) == 4 ? 6 : 13;

FANANO_FN constexpr float exp2_term(float, int k) {
  constexpr float c[] = {0x1.41fbbcp-13f, 0x1.5f3e52p-10f, 0x1.3b2d4cp-7f,
                         0x1.c6aee8p-5f,  0x1.ebfbdcp-3f,  0x1.62e430p-1f};
  return c[k];
}
FANANO_FN constexpr double exp2_term(double, int k) {
  constexpr double factorial[] = {
      6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0,
      720,          120,         24,         6,         2,        1};
  return 1 / factorial[k];
}

// For results of eight bits, f in [0, 1]: minimax in the relative error of 2^f with 2^0 = 1, degree
// 3, 8.6e-5; the last is the 1.
FANANO_FN constexpr float exp2_short_term(int k) {
  constexpr float c[] = {0x1.3baadcp-4f, 0x1.d23788p-3f, 0x1.63e654p-1f, 1};
  return c[k];
}

}  // namespace fanano
