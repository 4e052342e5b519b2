// The bits of a row's dq and of a key's dk and dv do not depend on what stands beside them: other
// sequences and heads, padding, and rows and keys that are NaN where they are not seen.
#include <cstring>
#include <random>

#include "../cpp/check.hpp"
#include "device_problem.hpp"
#include "kernels_table.hpp"

using namespace fanano;

namespace {

// A head of one sequence: causal, 100 queries at the end of 130 keys.
constexpr int64_t queries = 100, keys = 130, dim = 20;

// How it is asked for.
struct Setting {
  int64_t batch = 1, heads = 1;  // it is the last of each
  int64_t padding = 0;           // rows and keys of NaN after the sequence
  bool nan = false;              // the first query, and the last key
};

using Matrix = std::vector<double>;

Matrix draw(unsigned seed, int64_t n) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Matrix x;
  for (int64_t i = 0; i < n; ++i) x.push_back(normal(random));
  return x;
}

// (matrices, rows + padding, dim), x as the last matrix, other numbers and NaN around it.
template <class T> struct Placed {
  int64_t heads, rows;
  device::Buffer<T> memory;

  Placed(const Matrix& x, int64_t rows_, const Setting& s)
      : heads(s.heads), rows(rows_ + s.padding), memory(around(x, rows_, s)) {}

  static std::vector<T> around(const Matrix& x, int64_t rows, const Setting& s) {
    const Matrix others = draw(99, rows * dim);
    std::vector<T> all;
    for (int64_t m = 0; m < s.batch * s.heads; ++m) {
      for (int64_t i = 0; i < rows * dim; ++i)
        all.push_back(device::narrow<T>(m + 1 < s.batch * s.heads ? others[i] : x[i]));
      all.insert(all.end(), size_t(s.padding * dim), device::narrow<T>(NAN));
    }
    return all;
  }
  Tensor tensor() const { return {memory.data(), heads * rows * dim, rows * dim, dim, 1}; }
  // Rows [first, end) of the last matrix.
  std::vector<T> last(int64_t first, int64_t end) const {
    const std::vector<T> all = memory.values();
    const auto matrix = all.end() - rows * dim;
    return {matrix + first * dim, matrix + end * dim};
  }
};

// Bits of the rows' dq, and of the keys' dk and dv; without those that a NaN may reach.
template <class T>
std::vector<T> run(const cuda::BackwardKernel& kernel, const Setting& s, bool options) {
  Matrix of_q = draw(1, queries * dim), of_k = draw(2, keys * dim), of_v = draw(3, keys * dim);
  if (s.nan) {
    for (int64_t d = 0; d < dim; ++d) of_q[d] = of_k[(keys - 1) * dim + d] = NAN;
    of_v[(keys - 1) * dim] = INFINITY;
  }
  const Placed<T> q(of_q, queries, s), k(of_k, keys, s), v(of_v, keys, s);
  const Placed<T> dout(draw(4, queries * dim), queries, s);
  const Placed<T> out(Matrix(queries * dim), queries, s), dq(Matrix(queries * dim), queries, s);
  const Placed<T> dk(Matrix(keys * dim), keys, s), dv(Matrix(keys * dim), keys, s);
  const int64_t rows = queries + s.padding;
  device::Buffer<accumulator_t<T>> lse(size_t(s.batch * s.heads * rows));
  device::Buffer<int64_t> used_rows(std::vector<int64_t>(size_t(s.batch), queries));
  device::Buffer<int64_t> used_keys(std::vector<int64_t>(size_t(s.batch), keys));

  Problem p;
  p.dtype = p.out_dtype = kernel.dtype;
  p.shape = {s.batch, s.heads, s.heads, rows, keys + s.padding, dim, dim};
  p.q = q.tensor(), p.k = k.tensor(), p.v = v.tensor(), p.out = out.tensor();
  p.lse = {lse.data(), s.heads * rows, rows, 1, 0};
  p.score.scale = 0.4, p.window = {90, 0};
  p.lengths = {used_rows.data(), used_keys.data(), nullptr};
  if (options) p.score.softcap = 3;
  for (const cuda::FlashKernel* forward : cuda::all_flash_kernels)
    if (forward->dtype == p.dtype && forward->takes(p)) {
      device::check(attention_case::launch(*forward, p));
      break;
    }
  p.gradient.dout = dout.tensor(), p.gradient.dq = dq.tensor();
  p.gradient.dk = dk.tensor(), p.gradient.dv = dv.tensor();
  const device::Buffer<uint8_t> workspace(size_t(kernel.workspace(p)));
  device::check(kernel.launch(p, workspace.data(), nullptr));
  device::finish();
  // The first query sees keys up to 30; the last key is seen by the last query, which sees keys
  // from 39 on. So the keys between have neither among their rows.
  std::vector<T> bits = dq.last(1, queries - 1);
  for (const Placed<T>* of_keys : {&dk, &dv})
    for (T x : of_keys->last(31, 39)) bits.push_back(x);
  return bits;
}

}  // namespace

TEST(gradients_have_the_same_bits_wherever_they_stand) {
  for (const cuda::BackwardKernel* kernel : cuda::all_backward_kernels)
    device::with_type(kernel->dtype, [&]<class T>() {
      for (bool options : {false, true}) {
        if (options && !kernel->general) continue;
        const std::vector<T> alone = run<T>(*kernel, {}, options);
        auto same = [&](const Setting& s) {
          const std::vector<T> bits = run<T>(*kernel, s, options);
          CHECK(std::memcmp(bits.data(), alone.data(), alone.size() * sizeof(T)) == 0);
        };
        same({.batch = options ? 1 : 2, .heads = options ? 2 : 1, .padding = 30, .nan = true});
      }
    });
}
