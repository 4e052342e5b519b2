// exp2, exp, ceil and the 16-bit conversions of every instruction set that this machine has.
#include <cstring>
#include <set>

#include "../check.hpp"
#include "cpu/isa.hpp"
#include "math/numbers.hpp"
#include "vectors_table.hpp"

using namespace fanano;

namespace {

constexpr int64_t block = 16;

std::vector<const VectorFunctions*> runnable_ones() {
  std::set<std::string> runs;
  for (const Kernels* k : compiled_isas())
    if (runnable(*k)) runs.insert(k->isa);
  std::vector<const VectorFunctions*> list;
  for (const VectorFunctions* f : vectors_table)
    if (runs.count(f->isa)) list.push_back(f);
  return list;
}

template <class T> std::vector<T> apply(void (*f)(const T*, T*, int64_t), std::vector<T> x) {
  size_t n = x.size();
  x.resize((n + block - 1) / block * block);
  std::vector<T> out(x.size());
  f(x.data(), out.data(), int64_t(x.size()));
  out.resize(n);
  return out;
}

template <class T> std::vector<T> range(double from, double to, int n) {
  std::vector<T> x;
  for (int i = 0; i <= n; ++i) x.push_back(T(from + (to - from) * i / n));
  return x;
}

// Wide enough to be exact beside T. Floats do without long double, which many processors have in
// software only.
template <class T> using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;

// The largest relative error, in half units of the last place of T.
template <class T>
double worst(void (*f)(const T*, T*, int64_t), const std::vector<T>& x, Wide<T> (*exact)(Wide<T>)) {
  std::vector<T> y = apply(f, x);
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    Wide<T> right = exact(Wide<T>(x[i]));
    double error = double(std::fabs(Wide<T>(y[i]) - right) / right);
    largest = error > largest || error != error ? error : largest;
  }
  return largest * (sizeof(T) == 4 ? 0x1p24 : 0x1p53);
}

}  // namespace

TEST(exp2_rounds_well) {
  for (const VectorFunctions* f : runnable_ones()) {
    double single = worst(f->exp2_float, range<float>(-126, 40, 2000003), exp2);
    double twofold = worst(f->exp2_double, range<double>(-1022, 40, 500009), exp2l);
    std::printf("       %s: exp2 errs by %.2f and %.2f half units\n", f->isa, single, twofold);
    CHECK(single <= 2.5);
    CHECK(twofold <= 3.5);
  }
}

TEST(exp_rounds_well) {
  for (const VectorFunctions* f : runnable_ones()) {
    // Its lower end is where a factor 2 more would leave the normal numbers: 87, not 87.3.
    double single = worst(f->exp_float, range<float>(-86.9, 88.7, 2000003), exp);
    double twofold = worst(f->exp_double, range<double>(-707.9, 709.7, 500009), expl);
    std::printf("       %s: exp errs by %.2f and %.2f half units\n", f->isa, single, twofold);
    CHECK(single <= 2.5);
    CHECK(twofold <= 3.5);
  }
}

TEST(tanh_rounds_well) {
  for (const VectorFunctions* f : runnable_ones()) {
    for (double size : {1e-30, 1e-5, 0.3, 1.0, 30.0}) {  // no digits of small numbers are lost
      auto x = range<float>(size / 7, size, 300007);
      auto y = range<double>(-size, -size / 7, 100003);
      CHECK(worst(f->tanh_float, x, tanh) <= 5);
      CHECK(worst(f->tanh_double, y, tanhl) <= 6);
    }
    std::vector<float> y =
        apply(f->tanh_float, {0.0f, infinity<float>, -infinity<float>, 1e38f, std::nanf("")});
    CHECK(y[0] == 0 && y[1] == 1 && y[2] == -1 && y[3] == 1 && std::isnan(y[4]));
    std::vector<double> z = apply(f->tanh_double, {0.0, infinity<double>, -1e300, std::nan("")});
    CHECK(z[0] == 0 && z[1] == 1 && z[2] == -1 && std::isnan(z[3]));
  }
}

TEST(powers_of_two_are_exact) {
  for (const VectorFunctions* f : runnable_ones()) {
    std::vector<float> x = range<float>(-126, 40, 166), y = apply(f->exp2_float, x);
    for (size_t i = 0; i < x.size(); ++i) CHECK(y[i] == std::ldexp(1.0f, int(x[i])));
    std::vector<double> a = range<double>(-1022, 40, 1062), b = apply(f->exp2_double, a);
    for (size_t i = 0; i < a.size(); ++i) CHECK(b[i] == std::ldexp(1.0, int(a[i])));
  }
}

template <class T>
static void check_specials(void (*exp2)(const T*, T*, int64_t),
                           void (*exp)(const T*, T*, int64_t)) {
  T nan = T(std::nan("")), most = std::numeric_limits<T>::max();
  std::vector<T> y = apply(exp2, {nan, -nan, -infinity<T>, -most, T(-2000), T(0), T(-0.0)});
  CHECK(std::isnan(y[0]) && std::isnan(y[1]));
  CHECK(y[2] == 0 && y[3] == 0 && y[4] == 0);  // a masked score weighs exactly nothing
  CHECK(y[5] == 1 && y[6] == 1);
  y = apply(exp, {nan, -infinity<T>, -most, infinity<T>, most, T(0), T(711), T(-750)});
  CHECK(std::isnan(y[0]));
  CHECK(y[1] == 0 && y[2] == 0 && y[7] == 0);
  CHECK(y[3] == infinity<T> && y[4] == infinity<T> && y[6] == infinity<T>);
  CHECK(y[5] == 1);
}

TEST(exponentials_of_specials) {
  for (const VectorFunctions* f : runnable_ones()) {
    check_specials<float>(f->exp2_float, f->exp_float);
    check_specials<double>(f->exp2_double, f->exp_double);
  }
}

template <class T> static void check_ceil(void (*ceil)(const T*, T*, int64_t)) {
  T large = sizeof(T) == 4 ? T(0x1p23) : T(0x1p52);  // where fractions end
  std::vector<T> x = {T(0.5),
                      T(-0.5),
                      T(3),
                      T(3.25),
                      T(-3.75),
                      T(1e-30),
                      T(-1e-30),
                      large,
                      -large,
                      large * 4,
                      T(1e30),
                      infinity<T>,
                      -infinity<T>,
                      T(1234.75),
                      large - T(0.5),
                      T(0.5) - large,
                      large / 2 + T(0.5),
                      T(-0.5) - large / 2,
                      large / 4 + T(0.25)};
  for (T y = -20; y < 20; y += T(0.0625)) x.push_back(y);
  std::vector<T> y = apply(ceil, x);
  for (size_t i = 0; i < x.size(); ++i) CHECK_CLOSE(y[i], std::ceil(x[i]), 0);
  CHECK(std::isnan(apply(ceil, {T(std::nan(""))})[0]));
}

TEST(ceil_goes_up) {
  for (const VectorFunctions* f : runnable_ones()) {
    check_ceil<float>(f->ceil_float);
    check_ceil<double>(f->ceil_double);
  }
}

TEST(comparisons_of_all_lanes) {
  const float nan = std::nanf("");
  for (const VectorFunctions* f : runnable_ones()) {
    std::vector<float> ones(16, 1), twos(16, 2);
    CHECK(f->compare(ones.data(), twos.data()) == 3);
    CHECK(f->compare(ones.data(), ones.data()) == 0);
    for (int lane = 0; lane < f->width; ++lane)
      for (float other : {2.0f, nan}) {
        std::vector<float> x = ones, y = twos;
        x[lane] = other, y[lane] = other;
        CHECK(f->compare(x.data(), twos.data()) == int(f->width > 1));
        CHECK(f->compare(ones.data(), y.data()) == (other == 2 ? 3 : int(f->width > 1)));
        x = twos, x[lane] = 1;
        CHECK(f->compare(x.data(), twos.data()) == (f->width > 1 ? 1 : 3));
      }
  }
}

TEST(exp2_of_eight_bits) {
  std::vector<float> x = range<float>(-125.99f, 40, 2000003);
  for (int i = -126; i < 40; ++i)
    for (float f : {-0x1p-20f, 0.0f, 0x1p-20f}) x.push_back(i < -125 ? i : i + f);
  for (const VectorFunctions* f : runnable_ones()) {
    std::vector<float> y = apply(f->exp2_rounded, x);
    double largest = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      double right = std::exp2(double(x[i])), unit = std::exp2(std::floor(double(x[i])) - 7);
      CHECK(to_float(to_bfloat16(y[i])) == y[i]);
      largest = std::max(largest, std::fabs(y[i] - right) / unit);
    }
    std::printf("       %s: of 8 bits errs by %.3f units\n", f->isa, largest);
    CHECK(largest <= 0.5 + 256 * 9e-5);
    std::vector<float> y_of =
        apply(f->exp2_rounded, {0, 1, -1, -126, -126.5f, -1000, -infinity<float>, std::nanf("")});
    for (int i = 0; float right : {1.f, 2.f, 0.5f, 0x1p-126f, 0.f, 0.f, 0.f})
      CHECK(y_of[i++] == right);
    CHECK(std::isnan(y_of[7]));
  }
}

TEST(halves_of_pairs) {
  std::vector<float> x, y;
  for (int i = 0; i < 64; ++i)
    x.push_back(std::ldexp(1 + i / 128.f, i - 32)), y.push_back(-2 * x[i]);
  x[7] = infinity<float>, y[8] = std::nanf(""), y[9] = 0;
  std::vector<uint16_t> p(2 * x.size());
  for (const VectorFunctions* f : runnable_ones()) {
    f->join(x.data(), y.data(), p.data(), int64_t(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      CHECK(p[2 * i] == to_bfloat16(x[i]).bits);
      CHECK(std::isnan(y[i]) ? (p[2 * i + 1] & 0x7fff) > 0x7f80
                             : p[2 * i + 1] == to_bfloat16(y[i]).bits);
    }
  }
}

// What prefill takes for granted of products of pairs: which half is which, roundings, specials.
TEST(pairs) {
  constexpr int64_t n = 4096;
  std::vector<float> c(n), sum(n);
  std::vector<uint16_t> p(2 * n), q(2 * n);
  for (int64_t i = 0; i < n; ++i) {
    p[2 * i] = to_bfloat16(std::ldexp(1 + float(i * 37 % n) / n, int(i % 90) - 80)).bits;
    p[2 * i + 1] = to_bfloat16(i % 5 ? float(i * 53 % n) / n : 0).bits;
    q[2 * i] = to_bfloat16(float(i % 11) - 5).bits;
    q[2 * i + 1] = to_bfloat16(float(i % 3) + 0.5f).bits;
    c[i] = float(i % 7) - 3;
  }
  p[2 * 7] = to_bfloat16(infinity<float>).bits, p[2 * 8 + 1] = to_bfloat16(std::nanf("")).bits;
  for (const VectorFunctions* f : runnable_ones()) {
    std::printf("       %s: %s\n", f->isa, f->pair_products ? "has pairs" : "has none");
    if (!f->pair_products) continue;
    sum = c;
    f->pair_products(p.data(), q.data(), sum.data(), n);
    auto at = [](uint16_t bits) { return double(to_float(bfloat16{bits})); };
    for (int64_t i = 0; i < n; ++i) {
      double a = at(p[2 * i]) * at(q[2 * i]), b = at(p[2 * i + 1]) * at(q[2 * i + 1]);
      double right = c[i] + a + b, size = std::fabs(c[i]) + std::fabs(a) + std::fabs(b);
      if (std::isfinite(right))
        CHECK_CLOSE(sum[i], right, size * 0x1p-23);
      else
        CHECK(std::isnan(right) ? std::isnan(sum[i]) : sum[i] == float(right));
    }
  }
}

// math/numbers_test.cpp proves to_float and its inverses; here every instruction set must agree.
TEST(every_16_bit_pattern_widens) {
  std::vector<uint16_t> all(0x10000);
  for (size_t i = 0; i < all.size(); ++i) all[i] = uint16_t(i);
  std::vector<float> out(all.size());
  for (const VectorFunctions* f : runnable_ones())
    for (int64_t n : {int64_t(0x10000), int64_t(0xffff), int64_t(5)}) {
      auto same = [&](auto number) {
        for (int64_t i = 0; i < n; ++i) {
          float expected = to_float(decltype(number){uint16_t(i)});
          bool equal = std::isnan(expected) ? std::isnan(out[i])
                                            : std::memcmp(&expected, &out[i], sizeof expected) == 0;
          if (!equal) CHECK_CLOSE(out[i], expected, -1);
        }
      };
      f->widen_float16(all.data(), 1, out.data(), n);
      same(float16{});
      f->widen_bfloat16(all.data(), 1, out.data(), n);
      same(bfloat16{});
    }
}

TEST(floats_narrow_to_nearest_even) {
  std::vector<float> x;
  for (uint64_t u = 0; u < 0x100000000; u += 4093)
    x.push_back(__builtin_bit_cast(float, uint32_t(u)));
  for (uint32_t u = 0; u < 0xffff; ++u) {  // ties of both formats
    double a = to_float(float16{uint16_t(u)}), b = to_float(float16{uint16_t(u + 1)});
    if (std::isfinite(a) && std::isfinite(b)) x.push_back(float((a + b) / 2));
    x.push_back(__builtin_bit_cast(float, u << 16 | 0x8000));
  }
  std::vector<uint16_t> out(x.size());
  for (const VectorFunctions* f : runnable_ones())
    for (int64_t stride : {1, 2}) {
      int64_t n = int64_t(x.size()) / stride;
      auto same = [&](auto to, auto from) {
        for (int64_t i = 0; i < n; ++i) {
          uint16_t expected = to(x[i]).bits, got = out[i * stride];
          bool equal = std::isnan(x[i]) ? std::isnan(from(got)) : expected == got;
          if (!equal) CHECK_CLOSE(from(got), from(expected), -1);
        }
      };
      f->narrow_float16(x.data(), out.data(), stride, n);
      same([](float y) { return to_float16(y); }, [](uint16_t u) { return to_float(float16{u}); });
      f->narrow_bfloat16(x.data(), out.data(), stride, n);
      same([](float y) { return to_bfloat16(y); },
           [](uint16_t u) { return to_float(bfloat16{u}); });
    }
}
