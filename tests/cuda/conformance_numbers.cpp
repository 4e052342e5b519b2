// Instructions on single numbers: conversions and IEEE operations bit for bit, subnormal numbers
// included; ex2.approx within what its definition allows.
#include <cfloat>
#include <limits>
#include <random>

#include "conformance.hpp"
#include "ptx/ex2.cuh"
#include "ptx/pack.cuh"
#include "ptx/rcp.cuh"

namespace conformance {
namespace {

const float inf = std::numeric_limits<float>::infinity();

// What hurts: both zeros, subnormals, the ends of the ranges of all three formats, ties of
// roundings to 16 bits and to integers, infinities, NaN with several payloads.
Words special_floats() {
  Words all;
  for (float x : {0.0f,          1.0f,        0.5f,         1.5f,          2.5f,
                  3.0f,          1.0f / 3,    8388607.5f,   2147483520.0f, 2147483648.0f,
                  4e9f,          65503.0f,    65504.0f,     65519.996f,    65520.0f,
                  65536.0f,      FLT_MIN,     FLT_TRUE_MIN, FLT_MAX,       FLT_EPSILON,
                  0x1p-14f,      0x1p-24f,    0x1p-25f,     0x1.8p-25f,    0x1.8p-24f,
                  0x1.004p0f,    0x1.006p0f,  0x1.002p0f,   0x1.01p0f,     0x1.03p0f,
                  0x1.010002p0f, 0x1.fep127f, 0x1.ffp127f,  0x1p-133f,     0x1p-134f,
                  0x1.8p-134f,   inf})
    all.push_back(word(x)), all.push_back(word(-x));
  for (uint32_t nan : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0x7fffffffu}) all.push_back(nan);
  return all;
}

Words floats(size_t n) {
  Words all = special_floats();
  std::mt19937 random(1);
  while (all.size() < n) all.push_back(uint32_t(random()));  // any bits
  all.resize(n);
  return all;
}

// Every pair of special numbers, then any bits, to whole warps; so many numbers for each thread.
Words tuples(size_t n) {
  Words special = special_floats(), all;
  std::mt19937 random(2);
  for (uint32_t a : special)
    for (uint32_t b : special) {
      all.push_back(a), all.push_back(b);
      if (n == 3) all.push_back(special[random() % special.size()]);
    }
  while (all.size() % (32 * n)) all.push_back(uint32_t(random()));
  return all;
}

template <class F> Words by_host(const Words& inputs, size_t n, F f) {
  Words all;
  for (size_t i = 0; i < inputs.size(); i += n) f(&inputs[i], all);
  return all;
}

// ---- to 16 bits ----
template <class T> __global__ void pack(const uint32_t* in, uint32_t* out) {
  const uint32_t* pair = in + thread() * 2;
  out[thread()] = ptx::pack(T{}, __uint_as_float(pair[0]), __uint_as_float(pair[1]));
}

// By the definition of rounding, in float64, where all of it is exact.
template <class T> uint32_t rounded(float x) {
  constexpr bool half = std::is_same_v<T, float16>;
  constexpr int digits = half ? 10 : 7, least = half ? -14 : -126, most = half ? 15 : 127;
  if (std::isnan(x)) return 0x7fff;
  uint32_t sign = std::signbit(x) ? 0x8000 : 0;
  double size = std::fabs(double(x)), unit = device::ulp<T>(size);
  double value = std::isinf(x) ? size : std::nearbyint(size / unit) * unit;  // to even
  if (value >= std::ldexp(1.0, most + 1)) return sign | uint32_t(2 * most + 1) << digits;
  int exponent = value == 0 ? least : std::max(std::ilogb(value), least);
  uint32_t fraction = uint32_t(std::ldexp(value, digits - exponent));
  bool normal = fraction >= 1u << digits;
  uint32_t field = normal ? uint32_t(exponent - least + 1) << digits : 0;
  return sign | field | (fraction & ((1u << digits) - 1));
}

template <class T> void add_pack(std::vector<Case>& cases, const char* name) {
  Words inputs = floats(2048);
  cases.push_back({name, inputs, run<pack<T>, 1, 2>, by_host(inputs, 2, [](auto* x, Words& out) {
                     out.push_back(rounded<T>(number(x[1])) << 16 | rounded<T>(number(x[0])));
                   })});
}

// ---- IEEE operations ----
__global__ void two(const uint32_t* in, uint32_t* out) {
  const float a = __uint_as_float(in[thread() * 2]), b = __uint_as_float(in[thread() * 2 + 1]);
  const float results[] = {__fadd_rn(a, b), __fsub_rn(a, b), __fmul_rn(a, b),
                           __fdiv_rn(a, b), __frcp_rn(b),    fmaxf(a, b)};
  for (int k = 0; k < 6; ++k) out[thread() * 6 + k] = __float_as_uint(results[k]);
}
__global__ void fused(const uint32_t* in, uint32_t* out) {
  const uint32_t* x = in + thread() * 3;
  out[thread()] = __float_as_uint(
      __fmaf_rn(__uint_as_float(x[0]), __uint_as_float(x[1]), __uint_as_float(x[2])));
}

// The other where one is NaN, and +0 is above -0.
float larger(float a, float b) {
  if (std::isnan(a) || (a == 0 && b == 0 && std::signbit(a))) return b;
  return std::isnan(b) || a > b || a == b ? a : b;
}

void add_ieee(std::vector<Case>& cases) {
  Words pairs = tuples(2), triples = tuples(3);
  cases.push_back({"float32_operations", pairs, run<two, 6, 2>,
                   by_host(pairs, 2,
                           [](auto* x, Words& out) {
                             float a = number(x[0]), b = number(x[1]);
                             for (float r : {a + b, a - b, a * b, a / b, 1 / b, larger(a, b)})
                               out.push_back(word(r));
                           }),
                   true});
  cases.push_back({"float32_fma", triples, run<fused, 1, 3>,
                   by_host(triples, 3,
                           [](auto* x, Words& out) {
                             out.push_back(
                                 word(std::fma(number(x[0]), number(x[1]), number(x[2]))));
                           }),
                   true});
}

// ---- float64, and conversions ----
// Doubles of two floats: one number and a small part of it, so that all digits are taken.
__host__ __device__ double widened(float a, float b) { return double(a) + 0x1p-30 * double(b); }

__global__ void doubles(const uint32_t* in, uint32_t* out) {
  const uint32_t* x = in + thread() * 3;
  const float a = __uint_as_float(x[0]), b = __uint_as_float(x[1]), c = __uint_as_float(x[2]);
  const double p = widened(a, b), q = widened(b, c);
  const double results[] = {p + q, p * q, p / q, __fma_rn(p, q, double(c))};
  for (int k = 0; k < 4; ++k) {
    out[thread() * 9 + 2 * k] = uint32_t(__double2loint(results[k]));
    out[thread() * 9 + 2 * k + 1] = uint32_t(__double2hiint(results[k]));
  }
  out[thread() * 9 + 8] = __float_as_uint(__double2float_rn(p));
}

__global__ void integers(const uint32_t* in, uint32_t* out) {
  const uint32_t x = in[thread()];
  out[thread() * 2] = uint32_t(__float2int_rn(__uint_as_float(x)));
  out[thread() * 2 + 1] = __float_as_uint(__int2float_rn(int(x)));
}

void add_float64(std::vector<Case>& cases) {
  Words inputs = tuples(3), finite;
  // NaN's 64 bits are not the same everywhere, nor do they say anything.
  for (size_t i = 0; i < inputs.size(); i += 3) {
    double p = widened(number(inputs[i]), number(inputs[i + 1]));
    double q = widened(number(inputs[i + 1]), number(inputs[i + 2]));
    if (std::isfinite(p) && std::isfinite(q) && q != 0)
      for (size_t k = 0; k < 3; ++k) finite.push_back(inputs[i + k]);
  }
  finite.resize(finite.size() / 96 * 96);
  cases.push_back({"float64_operations", finite, run<doubles, 9, 3>,
                   by_host(finite, 3, [](auto* x, Words& out) {
                     float a = number(x[0]), b = number(x[1]), c = number(x[2]);
                     double p = widened(a, b), q = widened(b, c);
                     for (double r : {p + q, p * q, p / q, std::fma(p, q, double(c))}) {
                       uint64_t bits = std::bit_cast<uint64_t>(r);
                       out.push_back(uint32_t(bits)), out.push_back(uint32_t(bits >> 32));
                     }
                     out.push_back(word(float(p)));
                   })});
  inputs = floats(1024);
  cases.push_back(
      {"integers", inputs, run<integers, 2, 1>, by_host(inputs, 1, [](auto* x, Words& out) {
         double r = std::nearbyint(double(number(*x)));
         bool nan = std::isnan(r), high = r >= 0x1p31, low = r < -0x1p31;
         out.push_back(nan ? 0 : high ? 0x7fffffff : low ? 0x80000000 : uint32_t(int64_t(r)));
         out.push_back(word(float(int32_t(*x))));
       })});
}

// ---- ex2.approx.ftz ----
__global__ void power(const uint32_t* in, uint32_t* out) {
  out[thread()] = __float_as_uint(ptx::ex2(__uint_as_float(in[thread()])));
}

void add_ex2(std::vector<Case>& cases) {
  Words near_zero, range, ends;
  for (int i = 0; i < 2048; ++i) {
    near_zero.push_back(word(float(i - 1024) / 1024));
    range.push_back(word(-128 + float(i) * 0.123f));
  }
  for (float x : {0.0f, -0.0f, 1e-40f, -1e-40f, FLT_MIN, -FLT_MIN, 127.99999f, 128.0f, 1e30f, inf,
                  -125.5f, -126.0f, -126.00001f, -126.5f, -127.0f, -149.0f, -150.0f, -1e30f, -inf})
    ends.push_back(word(x));
  ends.push_back(0x7fc00000);
  while (ends.size() % 32) ends.push_back(word(-110 - float(ends.size())));
  for (auto [name, inputs] :
       {std::pair{"ex2_unit", near_zero}, {"ex2_range", range}, {"ex2_ends", ends}}) {
    std::vector<double> reference, allowed;
    for (uint32_t x : inputs) {
      double exact = std::exp2(double(number(x)));
      bool infinite = exact >= 0x1p128;
      reference.push_back(infinite ? double(inf) : exact);
      // Results below the normal numbers are zeros, or nearly so where rounding decides.
      allowed.push_back(infinite || std::isnan(exact) ? 0
                        : exact < 0x1.00001p-126      ? exact
                                                      : exact * 0x1p-22);
    }
    cases.push_back({name, inputs, run<power, 1, 1>, {}, true, reference, allowed});
  }
}

// ---- rcp.approx.ftz ----
__global__ void reciprocal(const uint32_t* in, uint32_t* out) {
  out[thread()] = __float_as_uint(ptx::rcp(__uint_as_float(in[thread()])));
}

// Of numbers whose reciprocals are normal numbers: an ulp, which is at most 2^-23 of the result.
void add_rcp(std::vector<Case>& cases) {
  std::mt19937 random(3);
  Words inputs{word(inf), word(-inf), word(1.0f), word(-1.0f)};
  while (inputs.size() < 1024) {
    const uint32_t bits = uint32_t(random()), exponent = bits >> 23 & 0xff;
    if (exponent > 2 && exponent < 252) inputs.push_back(bits);
  }
  std::vector<double> reference, allowed;
  for (uint32_t x : inputs) {
    reference.push_back(1 / double(number(x)));
    allowed.push_back(std::fabs(reference.back()) * 0x1p-23);
  }
  cases.push_back({"rcp", inputs, run<reciprocal, 1, 1>, {}, true, reference, allowed});
}

}  // namespace

void add_numbers(std::vector<Case>& cases) {
  add_pack<bfloat16>(cases, "pack_bfloat16");
  add_pack<float16>(cases, "pack_float16");
  add_ieee(cases);
  add_float64(cases);
  add_ex2(cases);
  add_rcp(cases);
}

}  // namespace conformance
