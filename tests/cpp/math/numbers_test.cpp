// The 16-bit formats, every bit pattern, against arithmetic that knows nothing of bits; and the two
// functions of our own against the C library's long double.
#include "math/numbers.hpp"

#include <cstdint>
#include <cstring>

#include "../check.hpp"

using namespace fanano;

namespace {

uint32_t bits(float x) { return __builtin_bit_cast(uint32_t, x); }
float of_bits(uint32_t u) { return __builtin_bit_cast(float, u); }

// The value of a 16-bit number, by its definition.
double value(uint16_t u, int fraction_bits, int bias) {
  int exponent_bits = 15 - fraction_bits, fraction = u & ((1 << fraction_bits) - 1);
  int exponent = u >> fraction_bits & ((1 << exponent_bits) - 1);
  double sign = u >> 15 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return fraction ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}

// To nearest, ties to even, of a double: the C library's rounding of x in units of the last place.
double nearest(double x, int fraction_bits, int bias, double limit) {
  if (x != x || std::isinf(x) || x == 0) return x;
  int exponent = std::max(std::ilogb(x), 1 - bias);
  double unit = std::ldexp(1, exponent - fraction_bits);
  double rounded = std::nearbyint(x / unit) * unit;
  return std::fabs(rounded) >= limit ? std::copysign(HUGE_VAL, x) : rounded;
}

struct Format {
  int fraction_bits, bias;
  double limit;  // the first power of two beyond the range
  float (*to)(uint16_t);
  uint16_t (*from)(float);
};

const Format formats[] = {
    {7, 127, 0x1p128, [](uint16_t u) { return to_float(bfloat16{u}); },
     [](float x) { return to_bfloat16(x).bits; }},
    {10, 15, 0x1p16, [](uint16_t u) { return to_float(float16{u}); },
     [](float x) { return to_float16(x).bits; }},
};

bool is_same(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

void check_rounding(const Format& f, float x) {
  double expected = nearest(x, f.fraction_bits, f.bias, f.limit);
  if (!is_same(value(f.from(x), f.fraction_bits, f.bias), expected))
    CHECK_CLOSE(value(f.from(x), f.fraction_bits, f.bias), expected, 0);
}

}  // namespace

TEST(every_pattern_there_and_back) {
  for (const Format& f : formats)
    for (uint32_t u = 0; u < 0x10000; ++u) {
      double expected = value(uint16_t(u), f.fraction_bits, f.bias);
      float x = f.to(uint16_t(u));
      if (!is_same(x, expected)) CHECK_CLOSE(x, expected, 0);
      if (std::isnan(expected))
        CHECK(std::isnan(value(f.from(x), f.fraction_bits, f.bias)));
      else
        CHECK(f.from(x) == u);
    }
}

TEST(ties_and_their_neighbours) {
  for (const Format& f : formats)
    for (uint32_t u = 0; u < 0xffff; ++u) {
      float x = f.to(uint16_t(u)), y = f.to(uint16_t(u + 1));
      if (!std::isfinite(x) || !std::isfinite(y)) continue;
      float tie = float((double(x) + y) / 2);
      for (float z : {tie, std::nextafterf(tie, x), std::nextafterf(tie, y)}) check_rounding(f, z);
    }
}

TEST(a_sample_of_all_floats) {
  for (const Format& f : formats)
    for (uint64_t u = 0; u < 0x100000000; u += 997) check_rounding(f, of_bits(uint32_t(u)));
}

TEST(the_ends_of_the_range) {
  CHECK(to_float16(65504).bits == 0x7bff);
  CHECK(to_float16(65519.99f).bits == 0x7bff);
  CHECK(to_float16(65520).bits == 0x7c00);  // the tie goes to the even, which is infinity
  CHECK(to_float16(-HUGE_VALF).bits == 0xfc00);
  CHECK(to_float16(0x1p-25f).bits == 0);  // a tie between 0 and the smallest
  CHECK(to_float16(0x1.000002p-25f).bits == 1);
  CHECK(to_float16(-0.0f).bits == 0x8000);
  CHECK(to_bfloat16(3.3895313892515355e38f).bits == 0x7f7f);
  CHECK(to_bfloat16(of_bits(0x7f7fffff)).bits == 0x7f80);
  for (uint32_t nan : {0x7f800001u, 0x7fffffffu, 0xff800001u}) {
    CHECK(std::isnan(to_float(to_float16(of_bits(nan)))));
    CHECK(std::isnan(to_float(to_bfloat16(of_bits(nan)))));
  }
  CHECK(bits(to_float(float16{0x0001})) == bits(0x1p-24f));
}

TEST(log2_of_positive_numbers) {
  for (uint64_t u = 1; u < 0x7ff0000000000000; u += 0x7ff0000000000000 / 300007) {
    double x;
    std::memcpy(&x, &u, sizeof x);
    long double exact = log2l((long double)x);
    CHECK_CLOSE(log2_positive(x), exact, 0x1p-51 * std::max(1.0, double(fabsl(exact))));
  }
  for (double x = 0.5; x < 2; x += 1e-4) CHECK_CLOSE(log2_positive(x), log2l(x), 0x1p-52);
  for (int e = -1074; e < 1024; ++e) CHECK(log2_positive(std::ldexp(1, e)) == e);
  CHECK(log2_positive(0) == -infinity<double>);
  CHECK(log2_positive(infinity<double>) == infinity<double>);
  CHECK(std::isnan(log2_positive(std::nan(""))));
}

TEST(exp2_of_nonpositive_numbers) {
  for (double x = -1022; x <= 1; x += 0.00171) {
    long double exact = exp2l((long double)x);
    CHECK_CLOSE(exp2_nonpositive(x), exact, 0x1p-51 * double(exact));
  }
  for (int e = -1022; e <= 0; ++e) CHECK(exp2_nonpositive(e) == std::ldexp(1, e));
  CHECK(exp2_nonpositive(-1e300) == 0);
  CHECK(exp2_nonpositive(-infinity<double>) == 0);
  CHECK(std::isnan(exp2_nonpositive(std::nan(""))));
}

// log2 e and its product with x are rounded: errors grow with what x log2 e has before the point.
TEST(exp_of_nonpositive_numbers) {
  for (double x = -708; x <= 1; x += 0.00173) {
    long double exact = expl((long double)x);
    CHECK_CLOSE(exp_nonpositive(x), exact, (2 * std::fabs(x) + 4) * 0x1p-53 * double(exact));
  }
  CHECK(exp_nonpositive(0) == 1);
  CHECK(exp_nonpositive(-infinity<double>) == 0);
  CHECK(std::isnan(exp_nonpositive(std::nan(""))));
}
