// A row's bits do not depend on what stands beside it: other sequences, heads and rows, padding,
// strides, keys that it does not see, and where a prefill was cut. But sequences of few queries are
// decode's, whatever else there is, and have bits of their own.
#include <cstring>
#include <random>

#include "../cpp/check.hpp"
#include "flash_check.hpp"

using namespace attention_case;

namespace {

// A head of one sequence: so many queries at the end of the keys.
struct Head { int64_t queries, keys; };
constexpr int64_t dim = 9, value_dim = 5;

// How it is asked for.
struct Setting {
  int64_t batch = 1, heads = 1, kv_heads = 1;  // it is the last of each
  int64_t padding = 0, more_keys = 0;          // rows and keys of NaN after the sequence
  int64_t gap = 0;                             // numbers between two of a row
  int64_t first = 0, end = 0;                  // its rows; end 0: to the last one
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
         int64_t padding, int64_t gap)
      : rows_(rows + padding), columns_(columns), step_(gap + 1),
        memory_(around(x, matrices, rows, columns, step_, padding)) {}

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

// Bits of the rows [first, end) of the head, by the first of these kernels that takes them: those
// of one dtype and kind.
using Kernels = std::vector<const cuda::FlashKernel*>;

template <class T>
std::vector<T> run(const Kernels& kernels, Head head, const Setting& s, bool options) {
  const int64_t end = s.end ? s.end : head.queries, rows = end - s.first, keys = head.keys;
  std::vector<double> all_q = draw(1, head.queries * dim);
  std::vector<double> some_q(all_q.begin() + s.first * dim, all_q.begin() + end * dim);
  for (int64_t d = 0; d < dim; ++d) some_q[size_t(d)] *= s.scale_of_others;
  const int64_t key_padding = s.padding + s.more_keys;
  Placed<T> q(some_q, s.batch * s.heads, rows, dim, s.padding, s.gap);
  Placed<T> k(draw(2, keys * dim), s.batch * s.kv_heads, keys, dim, key_padding, s.gap);
  Placed<T> v(draw(3, keys * value_dim), s.batch * s.kv_heads, keys, value_dim, key_padding, s.gap);
  Placed<T> out(std::vector<double>(size_t(rows * value_dim)), s.batch * s.heads, rows, value_dim,
                s.padding, s.gap);
  device::Buffer<int64_t> used_rows(std::vector<int64_t>(size_t(s.batch), rows));
  device::Buffer<int64_t> used_keys(std::vector<int64_t>(size_t(s.batch), keys));
  device::Buffer<int64_t> offsets(
      std::vector<int64_t>(size_t(s.batch), keys - head.queries + s.first));
  std::vector<double> some_slopes(size_t(s.heads));  // of other heads: none
  some_slopes.back() = 0.25;
  device::Buffer<double> slopes(some_slopes);

  Problem p;
  p.dtype = p.out_dtype = kernels[0]->dtype;
  p.shape = {s.batch, s.heads, s.kv_heads, rows + s.padding, keys + key_padding, dim, value_dim};
  p.q = q.tensor(s.heads), p.k = k.tensor(s.kv_heads), p.v = v.tensor(s.kv_heads);
  p.out = out.tensor(s.heads);
  p.score.scale = 0.4, p.window = {keys / 2, 0};
  p.lengths = {used_rows.data(), used_keys.data(), offsets.data()};
  if (options) p.score.softcap = 3, p.score.slopes = slopes.data();
  auto taking = [&](const cuda::FlashKernel* kernel) { return kernel->takes(p); };
  device::check(launch(**std::find_if(kernels.begin(), kernels.end(), taking), p));
  device::finish();
  return out.last(rows);
}

template <class T> bool same_bits(const std::vector<T>& a, const T* b) {
  return std::memcmp(a.data(), b, a.size() * sizeof(T)) == 0;
}

// The general kernel alone, and all that come before it in the table.
const std::vector<Kernels>& kinds() {
  static const std::vector<Kernels> kinds = [] {
    std::vector<Kernels> all;
    for (Dtype dtype : {Dtype::float64, Dtype::float32, Dtype::bfloat16, Dtype::float16}) {
      Kernels of_dtype;
      for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels)
        if (kernel->dtype == dtype) of_dtype.push_back(kernel);
      all.push_back({of_dtype.back()});
      if (of_dtype.size() > 1) all.push_back(of_dtype);
    }
    return all;
  }();
  return kinds;
}

void check_bits(const Kernels& kernels, Head head, std::initializer_list<Setting> settings) {
  device::with_type(kernels[0]->dtype, [&]<class T>() {
    for (bool options : {false, true}) {
      const std::vector<T> alone = run<T>(kernels, head, {}, options);
      for (const Setting& s : settings)
        CHECK(same_bits(run<T>(kernels, head, s, options), &alone[size_t(s.first * value_dim)]));
    }
  });
}

void check_neighbours(const Kernels& kernels, Head head) {
  device::with_type(kernels[0]->dtype, [&]<class T>() {
    const std::vector<T> alone = run<T>(kernels, head, {}, false);
    for (double scale : {double(NAN), 1e30, 0.0}) {
      std::vector<T> others = run<T>(kernels, head, {.scale_of_others = scale}, false);
      others.erase(others.begin(), others.begin() + value_dim);
      CHECK(same_bits(others, &alone[value_dim]));
    }
  });
}

}  // namespace

TEST(a_row_has_the_same_bits_wherever_it_stands) {
  for (const Kernels& kernels : kinds())
    check_bits(kernels, {40, 75},
               {{.batch = 2},
                {.heads = 4, .kv_heads = 2},
                {.padding = 30, .gap = 1},
                {.first = 0, .end = 17},
                {.first = 17}});
}

TEST(and_in_decode) {
  for (const Kernels& kernels : kinds()) {
    if (kernels.size() == 1) continue;
    check_bits(kernels, {9, 1100},
               {{.batch = 2},
                {.heads = 4, .kv_heads = 2},
                {.heads = 3},
                {.padding = 3, .gap = 1},
                {.padding = 30},  // with room for a prefill
                {.more_keys = 700},
                {.first = 0, .end = 5},
                {.first = 3},
                {.first = 8}});
    // Of one split, and of one in a cache that has room for more.
    check_bits(kernels, {9, 300}, {{.heads = 2}, {.more_keys = 700}, {.padding = 30}});
  }
}

TEST(other_rows_leave_a_row_alone) {
  for (const Kernels& kernels : kinds()) {
    check_neighbours(kernels, {40, 75});
    if (kernels.size() > 1) check_neighbours(kernels, {9, 600});
  }
}
