// A row's bits do not depend on what stands beside it: other sequences, heads and rows, padding,
// strides, keys that it does not see, and where a prefill was cut.
#include <cstring>
#include <random>

#include "../cpp/check.hpp"
#include "device.hpp"
#include "kernels_table.hpp"

using namespace fanano;

namespace {

// A head of one sequence: 40 queries at the end of 75 keys.
constexpr int64_t queries = 40, keys = 75, dim = 9, value_dim = 5;

// How it is asked for.
struct Setting {
  int64_t batch = 1, heads = 1, kv_heads = 1;  // it is the last of each
  int64_t padding = 0;                         // rows and keys of NaN after the sequence
  int64_t gap = 0;                             // numbers between two of a row
  int64_t first = 0, end = queries;            // its rows
  double scale_of_others = 1;                  // what q of the first row of all is multiplied by
};

std::vector<double> draw(unsigned seed, int64_t n) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(normal(random));
  return x;
}

// Numbers of (matrices, rows, columns), x as the last matrix, other numbers and NaN around it.
template <class T> class Placed {
  int64_t rows_, columns_, step_;
  device::Buffer<T> memory_;

  static std::vector<T> around(const std::vector<double>& x, int64_t matrices, int64_t rows,
                               int64_t columns, int64_t step, int64_t padding) {
    std::vector<double> others = draw(99, matrices * rows * columns);
    std::vector<T> all(size_t(matrices * (rows + padding) * columns * step),
                       device::narrow<T>(NAN));
    for (int64_t m = 0; m < matrices; ++m)
      for (int64_t i = 0; i < rows * columns; ++i)
        all[size_t((m * (rows + padding) * columns + i) * step)] = device::narrow<T>(
            m + 1 < matrices ? others[size_t(m * rows * columns + i)] : x[size_t(i)]);
    return all;
  }

 public:
  Placed(const std::vector<double>& x, int64_t matrices, int64_t rows, int64_t columns,
         const Setting& s)
      : rows_(rows + s.padding), columns_(columns), step_(s.gap + 1),
        memory_(around(x, matrices, rows, columns, step_, s.padding)) {}

  Tensor tensor(int64_t heads) const {
    const int64_t row = columns_ * step_;
    return {memory_.data(), heads * rows_ * row, rows_ * row, row, step_};
  }
  // The first rows of the last matrix.
  std::vector<T> last(int64_t rows) const {
    const std::vector<T> all = memory_.values();
    std::vector<T> some;
    for (size_t i = all.size() - size_t(rows_ * columns_ * step_);
         some.size() < size_t(rows * columns_); i += size_t(step_))
      some.push_back(all[i]);
    return some;
  }
};

// Bits of the rows [first, end) of the head.
template <class T>
std::vector<T> run(const cuda::FlashKernel& kernel, const Setting& s, bool options) {
  const int64_t rows = s.end - s.first, group = s.heads / s.kv_heads;
  std::vector<double> all_q = draw(1, queries * dim);
  std::vector<double> some_q(all_q.begin() + s.first * dim, all_q.begin() + s.end * dim);
  for (int64_t d = 0; d < dim; ++d) some_q[size_t(d)] *= s.scale_of_others;
  Placed<T> q(some_q, s.batch * s.heads, rows, dim, s);
  Placed<T> k(draw(2, keys * dim), s.batch * s.kv_heads, keys, dim, s);
  Placed<T> v(draw(3, keys * value_dim), s.batch * s.kv_heads, keys, value_dim, s);
  Placed<T> out(std::vector<double>(size_t(rows * value_dim)), s.batch * s.heads, rows, value_dim,
                s);
  device::Buffer<int64_t> used_rows(std::vector<int64_t>(size_t(s.batch), rows));
  device::Buffer<int64_t> used_keys(std::vector<int64_t>(size_t(s.batch), keys));
  device::Buffer<int64_t> offsets(std::vector<int64_t>(size_t(s.batch), keys - queries + s.first));
  device::Buffer<double> slopes(std::vector<double>(size_t(s.heads), 0.25));

  Problem p;
  p.dtype = p.out_dtype = kernel.dtype;
  p.shape = {s.batch, s.heads, s.kv_heads, rows + s.padding, keys + s.padding, dim, value_dim};
  p.q = q.tensor(s.heads), p.k = k.tensor(s.kv_heads), p.v = v.tensor(s.kv_heads);
  p.out = out.tensor(s.heads);
  p.score.scale = 0.4, p.window = {30, 0};
  p.lengths = {used_rows.data(), used_keys.data(), offsets.data()};
  if (options) p.score.softcap = 3, p.score.slopes = slopes.data();
  device::check(kernel.launch(p, nullptr));
  device::finish();
  CHECK(group * s.kv_heads == s.heads);
  return out.last(rows);
}

template <class T> bool same_bits(const std::vector<T>& a, const T* b) {
  return std::memcmp(a.data(), b, a.size() * sizeof(T)) == 0;
}

}  // namespace

TEST(a_row_has_the_same_bits_wherever_it_stands) {
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels)
    device::with_type(kernel->dtype, [&]<class T>() {
      for (bool options : {false, true}) {
        if (options && !kernel->general) continue;
        const std::vector<T> alone = run<T>(*kernel, {}, options);
        auto same = [&](const Setting& s) {
          CHECK(same_bits(run<T>(*kernel, s, options), &alone[size_t(s.first * value_dim)]));
        };
        same({.batch = 2});
        same({.heads = 4, .kv_heads = 2});
        same({.padding = 30, .gap = 1});
        same({.first = 0, .end = 17}), same({.first = 17}), same({.first = 39});
      }
    });
}

TEST(other_rows_leave_a_row_alone) {
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels)
    device::with_type(kernel->dtype, [&]<class T>() {
      const std::vector<T> alone = run<T>(*kernel, {}, false);
      for (double scale : {double(NAN), 1e30, 0.0}) {
        std::vector<T> others = run<T>(*kernel, {.scale_of_others = scale}, false);
        others.erase(others.begin(), others.begin() + value_dim);
        CHECK(same_bits(others, &alone[value_dim]));
      }
    });
}
