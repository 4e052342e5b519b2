// The ladder's softmax on the device: every dtype and algorithm, every element against float64.
#include <limits>
#include <random>

#include "../cpp/check.hpp"
#include "device.hpp"
#include "kernels_table.hpp"

using namespace fanano;
using device::Buffer;

namespace {

const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
const Algorithm algorithms[] = {Algorithm::naive, Algorithm::safe, Algorithm::online};
const char* const names[] = {"naive", "safe", "online"};

enum Data { normal, growing, huge, some_hidden, all_hidden, with_nan, with_infinity };
const Data all_data[] = {normal, growing, huge, some_hidden, all_hidden, with_nan, with_infinity};

std::vector<double> row_of(Data data, int64_t n, std::mt19937& random) {
  std::normal_distribution<double> draw;
  std::vector<double> x;
  for (int64_t j = 0; j < n; ++j) {
    double v = draw(random);
    if (data == growing) v += 0.05 * double(j);  // every chunk raises the maximum
    if (data == huge) v *= 3000;
    if (data == some_hidden && j % 3 != 1) v = -inf;
    if (data == all_hidden) v = -inf;
    x.push_back(v);
  }
  if (data == with_nan) x[n / 2] = nan;
  if (data == with_infinity) x[n - 1] = inf;
  return x;
}

// What the algorithm's formula gives where nothing overflows: nothing seen is zeros, and NaN for
// the naive one.
std::vector<long double> exact(const std::vector<double>& x, bool naive) {
  long double m = -inf, l = 0;
  for (double v : x) m = v > m ? v : m;
  if (m == -inf || naive) m = 0;
  for (double v : x) l += std::exp(v - m);
  std::vector<long double> p;
  for (double v : x) p.push_back(l == 0 && !naive ? 0 : std::exp(v - m) / l);
  return p;
}

// e^(x - m) may be wrong by the rounding of x - m, the power's, the sum's and the last product's.
template <class T> double allowed(double p, double x, double m) {
  using A = accumulator_t<T>;
  double eps = device::eps<A>() / 2, distance = std::isfinite(x - m) ? std::fabs(x - m) : 0;
  return p * eps * (10 + distance) + device::ulp<T>(p) / 2 + device::ulp<A>(0);
}

// Rows of n numbers; strides of x and of the output, in elements.
struct Layout { int64_t x_column, out_column, gap; };

template <class T>
void check_rows(const cuda::Kernels& kernels, Algorithm algorithm, const char* name, int64_t n,
                const std::vector<Data>& data, Layout layout) {
  std::mt19937 random(static_cast<unsigned>(n));
  int64_t x_row = n * layout.x_column + layout.gap, out_row = n * layout.out_column + layout.gap;
  std::vector<T> x(size_t(x_row * int64_t(data.size())), device::narrow<T>(nan));
  std::vector<std::vector<double>> rows;
  for (size_t r = 0; r < data.size(); ++r) {
    rows.push_back(row_of(data[r], n, random));
    for (int64_t j = 0; j < n; ++j) {
      T& place = x[size_t(r * x_row + j * layout.x_column)];
      place = device::narrow<T>(rows[r][j]);
      rows[r][j] = device::widen(place);
    }
  }
  Buffer<T> from(x), to(std::vector<T>(size_t(out_row * int64_t(data.size())), T{}));
  device::check(kernels.softmax({algorithm, int64_t(data.size()), n, from.data(), x_row,
                                 layout.x_column, to.data(), out_row, layout.out_column},
                                nullptr));
  device::finish();
  std::vector<T> got = to.values();
  for (size_t r = 0; r < data.size(); ++r) {
    bool naive = algorithm == Algorithm::naive;
    if (naive && (data[r] == growing || data[r] == huge)) continue;  // overflows: another test
    std::vector<long double> p = exact(rows[r], naive);
    double m = naive ? 0 : *std::max_element(rows[r].begin(), rows[r].end());
    for (int64_t j = 0; j < n; ++j) {
      double value = device::widen(got[size_t(r * out_row + j * layout.out_column)]);
      const double expected = double(p[j]);
      bool fine = std::isfinite(value) && std::isfinite(expected)
                      ? std::fabs(double(value - p[j])) <= allowed<T>(expected, rows[r][j], m)
                      : check::close(value, expected, 0);
      if (!fine)
        check::report(false, __FILE__, __LINE__,
                      std::string(name) + " data " + std::to_string(data[r]) + " n " +
                          std::to_string(n) + " column " + std::to_string(j) + ": " +
                          std::to_string(value) + " for " + std::to_string(expected));
      else
        CHECK(fine);
    }
  }
}

void check_all(int64_t n, const std::vector<Data>& data, Layout layout) {
  for (const cuda::Kernels* kernels : cuda::all_kernels)
    for (int a = 0; a < 3; ++a)
      device::with_type(kernels->dtype, [&]<class T>() {
        check_rows<T>(*kernels, algorithms[a], names[a], n, data, layout);
      });
}

}  // namespace

TEST(every_element_of_all_kinds_of_rows) {
  std::vector<Data> all(std::begin(all_data), std::end(all_data));
  for (int64_t n : {1, 2, 31, 127, 128, 129, 509}) check_all(n, all, {1, 1, 0});
  check_all(1031, {normal, growing}, {1, 1, 0});
}

TEST(strides) { check_all(131, {normal, some_hidden, normal}, {3, 2, 5}); }

TEST(in_place) {
  for (const cuda::Kernels* kernels : cuda::all_kernels)
    device::with_type(kernels->dtype, [&]<class T>() {
      std::mt19937 random(1);
      std::vector<double> x = row_of(normal, 300, random);
      Buffer<T> data(device::narrow_all<T>(x)), other(size_t(300));
      Buffer<T> source(device::narrow_all<T>(x));
      device::check(kernels->softmax(
          {Algorithm::online, 1, 300, source.data(), 300, 1, other.data(), 300, 1}, nullptr));
      device::check(kernels->softmax(
          {Algorithm::online, 1, 300, data.data(), 300, 1, data.data(), 300, 1}, nullptr));
      device::finish();
      std::vector<T> a = data.values(), b = other.values();
      for (size_t j = 0; j < a.size(); ++j) CHECK(device::widen(a[j]) == device::widen(b[j]));
    });
}

TEST(nothing_to_do) {
  for (const cuda::Kernels* kernels : cuda::all_kernels) {
    device::check(kernels->softmax({Algorithm::safe, 0, 5, nullptr, 0, 1, nullptr, 0, 1}, nullptr));
    device::check(kernels->softmax({Algorithm::safe, 5, 0, nullptr, 0, 1, nullptr, 0, 1}, nullptr));
  }
}

TEST(the_naive_one_overflows_and_the_others_do_not) {
  const cuda::Kernels& kernels = cuda::kernels_float32;
  Buffer<float> x(std::vector<float>{90, 1}), out(size_t(2));
  device::check(
      kernels.softmax({Algorithm::naive, 1, 2, x.data(), 2, 1, out.data(), 2, 1}, nullptr));
  device::finish();
  CHECK(std::isnan(out.values()[0]) && out.values()[1] == 0);
  device::check(
      kernels.softmax({Algorithm::safe, 1, 2, x.data(), 2, 1, out.data(), 2, 1}, nullptr));
  device::finish();
  CHECK(out.values()[0] == 1);
  CHECK_CLOSE(out.values()[1], std::exp(-89.0), 1e-42);
}
