// mma.sync: its layouts bit for bit; and what its sums are made of, which is left open by its
// definition: width, order and truncation, by inputs in which they show.
#include <functional>
#include <limits>
#include <random>

#include "conformance.hpp"
#include "ptx/mma.cuh"

namespace conformance {
namespace {

constexpr int rows = 16, columns = 8, depth = 16;

// D = A B + C. The inputs are fragments: of each lane four words of A, two of B, four of C.
template <class T> __global__ void product(const uint32_t* in, uint32_t* out) {
  const uint32_t* x = in + thread() * 10;
  float d[4];
  for (int k = 0; k < 4; ++k) d[k] = __uint_as_float(x[6 + k]);
  const uint32_t a[4] = {x[0], x[1], x[2], x[3]};
  ptx::mma(T{}, d, a, x[4], x[5]);
  for (int k = 0; k < 4; ++k) out[thread() * 4 + k] = __float_as_uint(d[k]);
}

struct Matrices { double a[rows][depth], b[depth][columns], c[rows][columns]; };

template <class T> uint32_t pair(double low, double high) {
  return uint32_t(device::narrow<T>(high).bits) << 16 | device::narrow<T>(low).bits;
}

// Fragments, as the definition of the instruction has them. The matrices become what the dtype has.
template <class T> void append(Words& words, Matrices& m) {
  for (auto& row : m.a)
    for (double& x : row) x = device::rounded<T>(x);
  for (auto& row : m.b)
    for (double& x : row) x = device::rounded<T>(x);
  for (int lane = 0; lane < 32; ++lane) {
    int r = lane / 4, c = lane % 4 * 2;
    for (int k = 0; k < 4; ++k) {
      const double* a = &m.a[r + k % 2 * 8][c + k / 2 * 8];
      words.push_back(pair<T>(a[0], a[1]));
    }
    for (int k = 0; k < 2; ++k) words.push_back(pair<T>(m.b[c + k * 8][r], m.b[c + k * 8 + 1][r]));
    for (int k = 0; k < 4; ++k) words.push_back(word(float(m.c[r + k / 2 * 8][c + k % 2])));
  }
}

struct Sum { double exact = 0, largest = 0, total = 0; };  // of the terms' sizes

Sum sum_of(const Matrices& m, int row, int column) {
  Sum sum;
  auto add = [&](double term) {
    sum.exact += term;
    sum.largest = std::max(sum.largest, std::fabs(term)), sum.total += std::fabs(term);
  };
  add(m.c[row][column]);
  for (int t = 0; t < depth; ++t) add(m.a[row][t] * m.b[t][column]);
  return sum;
}

using Fill = std::function<double(int row, int column)>;
struct Filling { Fill a, b, c; };

// Of a sum of 17 terms, each may lose what lies below the last place of a float as large as the
// largest of them ("at least single precision"), and each partial sum may be truncated.
double allowed_of(const Sum& sum) {
  return 0x1p-23 * (18 * sum.largest + 2 * sum.total) + 0x1p-149;
}
// Subnormal numbers may count or be zeros.
double allowed_of_subnormals(const Sum& sum) { return sum.total; }
double exactly(const Sum&) { return 0; }

template <class T>
void add_case(std::vector<Case>& cases, const std::string& name,
              const std::vector<Filling>& fillings, double (*allowed)(const Sum&)) {
  Case found{name, {}, run<product<T>, 4, 10>, {}, true};
  for (const Filling& filling : fillings) {
    Matrices m;
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 16; ++j) {
        m.a[i][j] = filling.a(i, j);
        if (j < columns) m.b[i][j] = filling.b(i, j), m.c[i][j] = float(filling.c(i, j));
      }
    append<T>(found.inputs, m);
    for (int lane = 0; lane < 32; ++lane)
      for (int k = 0; k < 4; ++k) {
        Sum sum = sum_of(m, lane / 4 + k / 2 * 8, lane % 4 * 2 + k % 2);
        found.reference.push_back(sum.exact);
        found.allowed.push_back(allowed(sum));
      }
  }
  cases.push_back(found);
}

template <class T> void add_products_of(std::vector<Case>& cases, const std::string& dtype) {
  const Fill zero = [](int, int) { return 0; }, one = [](int, int) { return 1; };
  std::mt19937 random(3);
  const Fill drawn = [&](int, int) { return std::normal_distribution<double>{}(random); };
  const bool half = std::is_same_v<T, float16>;

  // Integers, all of A different, then all of B, then all of C: sums are exact.
  const Fill one_to_one = [](int i, int j) { return i % 8 == j ? 1 : 0; };
  const Fill diagonal = [](int i, int j) { return i == j ? 1 : 0; };
  const Fill number = [](int i, int j) { return i * 16 + j; };
  const Fill of_c = [](int i, int j) { return 1000 + i * 8 + j; };
  const Fill small = [](int i, int j) { return (i * 7 + j * 3) % 13 - 6; };
  add_case<T>(cases, "mma_layout_" + dtype,
              {{number, one_to_one, zero},
               {diagonal, number, zero},
               {zero, zero, of_c},
               {small, small, of_c}},
              exactly);

  // One large term and small ones that single additions of float32 would lose, at each depth. Wide
  // sums keep them all, narrow ones none or some; truncation and rounding differ in the last place.
  std::vector<Filling> fillings;
  for (int large = 0; large < depth; large += 5)
    fillings.push_back({[=](int i, int t) { return t == large ? 1 : std::ldexp(1.0, -i / 2 - 4); },
                        [=](int t, int j) {
                          return t == large ? 1024 : (j % 2 ? -1 : 1) * std::ldexp(1.0, -8 - j / 2);
                        },
                        zero});
  fillings.push_back({[](int i, int) { return std::ldexp(1.0, -i / 2 - 6); },
                      [](int, int j) { return std::ldexp(1.0, -6 - j); }, one});
  fillings.push_back({drawn, drawn, drawn});
  add_case<T>(cases, "mma_large_and_small_" + dtype, fillings, allowed_of);

  // Two large terms cancel, next to each other or far apart, and small ones remain.
  fillings.clear();
  for (int apart : {1, 4, 8, 15})
    fillings.push_back({[=](int i, int t) { return t == 0 || t == apart ? 200 : 1 + i / 16.0; },
                        [=](int t, int j) {
                          return t == 0 ? 100 : t == apart ? -100 : std::ldexp(1.0 + j / 8.0, -6);
                        },
                        drawn});
  fillings.push_back({drawn, one, [](int, int j) { return j * 1000.0; }});
  add_case<T>(cases, "mma_cancelling_" + dtype, fillings, allowed_of);

  // Subnormal numbers in; sums that are subnormal as floats.
  const double tiny = half ? 0x1p-24 : 0x1p-133;
  const Fill subnormal = [=](int i, int j) { return (1 + (i * 5 + j) % 7) * tiny; };
  add_case<T>(cases, "mma_subnormals_" + dtype,
              {{subnormal, one, zero},
               {one, subnormal, [](int i, int j) { return (i * 8 + j) * 0x1p-149; }},
               {zero, zero, [](int i, int j) { return (i * 8 + j - 60) * 0x1p-149; }}},
              allowed_of_subnormals);

  // Infinities and NaN in some rows and columns: they reach these, and no others. Zero times an
  // infinity is NaN, and so are two infinities that differ.
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  add_case<T>(cases, "mma_specials_" + dtype,
              {{[=](int i, int t) {
                  return i == 1 && t == 3   ? inf
                         : i == 2 && t == 9 ? -inf
                         : i == 4 && t == 0 ? nan
                         : i == 6 && t > 13 ? (t == 14 ? inf : -inf)
                                            : 1;
                },
                [=](int t, int j) { return t == 3 && j == 2   ? 0
                                           : t == 5 && j == 7 ? inf
                                                              : 1; },
                [=](int i, int j) { return i == 9 && j == 1   ? -inf
                                           : j == 4 && i == 3 ? nan
                                                              : 2; }},
               {zero, one, [=](int i, int j) { return i == j ? inf : 0; }}},
              exactly);
}

}  // namespace

void add_products(std::vector<Case>& cases) {
  add_products_of<bfloat16>(cases, "bfloat16");
  add_products_of<float16>(cases, "float16");
}

}  // namespace conformance
