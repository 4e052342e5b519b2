// Materialised attention on the device: every dtype and algorithm, against the float64 oracle.
#include "attention_case.hpp"
#include "kernels_table.hpp"

using namespace attention_case;
using device::Buffer;

namespace {

const Algorithm algorithms[] = {Algorithm::naive, Algorithm::safe, Algorithm::online};

Tensor tensor(void* data, int64_t heads, int64_t rows, int64_t columns) {
  return {data, heads * rows * columns, rows * columns, columns, 1};
}

template <class T> void check_case(const cuda::Kernels& kernels, const Case& c, bool partial) {
  Numbers x(c);
  std::vector<T> q = device::narrow_all<T>(x.q), k = device::narrow_all<T>(x.k),
                 v = device::narrow_all<T>(x.v);
  auto widen = [](const std::vector<T>& from, std::vector<double>& to) {
    for (size_t i = 0; i < to.size(); ++i) to[i] = device::widen(from[i]);
  };
  widen(q, x.q), widen(k, x.k), widen(v, x.v);
  Result exact = reference<T>(c, x, false), plain = reference<T>(c, x, true);
  double largest_logit = 0;
  for (double y : exact.lse)
    if (std::isfinite(y)) largest_logit = std::max(largest_logit, std::fabs(y));

  const Shape& s = c.shape;
  Buffer<T> dq(q), dk(k), dv(v), out(exact.out.size());
  Buffer<float> lse(exact.lse.size()), scores(size_t(s.batch * s.heads * s.queries * s.keys));
  Buffer<float> wide(exact.out.size());
  Buffer<int64_t> queries(c.queries), keys(c.keys), offsets(c.offsets);
  Problem p;
  p.dtype = kernels.dtype, p.out_dtype = partial ? Dtype::float32 : kernels.dtype;
  p.shape = s;
  p.q = tensor(dq.data(), s.heads, s.queries, s.dim);
  p.k = tensor(dk.data(), s.kv_heads, s.keys, s.dim);
  p.v = tensor(dv.data(), s.kv_heads, s.keys, s.value_dim);
  p.out = tensor(partial ? static_cast<void*>(wide.data()) : out.data(), s.heads, s.queries,
                 s.value_dim);
  p.lse = {lse.data(), s.heads * s.queries, s.queries, 1, 0};
  p.score.scale = c.used_scale();
  p.window = c.window;
  if (!c.queries.empty()) p.lengths.queries = queries.data();
  if (!c.keys.empty()) p.lengths.keys = keys.data();
  if (!c.offsets.empty()) p.lengths.q_offset = offsets.data();
  for (Algorithm algorithm : algorithms) {
    if (algorithm == Algorithm::naive && c.data != normal) continue;  // it overflows
    p.algorithm = algorithm;
    device::check(kernels.materialised(p, scores.data(), nullptr));
    device::finish();
    std::vector<double> got(exact.out.size()), got_lse(exact.lse.size());
    if (partial) {
      std::vector<float> values = wide.values();
      got.assign(values.begin(), values.end());
    } else {
      widen(out.values(), got);
    }
    std::vector<float> values = lse.values();
    got_lse.assign(values.begin(), values.end());
    std::string what = "dtype " + std::to_string(int(kernels.dtype)) + " algorithm " +
                       std::to_string(int(algorithm)) + " queries " + std::to_string(s.queries) +
                       " keys " + std::to_string(s.keys);
    judge<T>(what, got, exact.out, plain.out);
    judge_lse(what + " lse", got_lse, exact.lse, largest_logit, s.dim);
  }
}

void check_all(const Case& c, bool partial = false) {
  for (const cuda::Kernels* kernels : cuda::all_kernels)
    device::with_type(kernels->dtype, [&]<class T>() { check_case<T>(*kernels, c, partial); });
}

}  // namespace

TEST(sizes_around_a_tile) {
  //         batch heads kv queries keys dim value_dim
  check_all({{1, 1, 1, 1, 1, 1, 1}, {}});
  check_all({{1, 2, 1, 15, 17, 16, 16}, {}});
  check_all({{2, 2, 2, 16, 16, 17, 15}, {}});
  check_all({{1, 1, 1, 17, 37, 33, 8}, {}});
}

TEST(grouped_heads) {
  check_all({{2, 4, 2, 5, 19, 8, 8}, {}});  // h / 2 is not h % 2
}

TEST(masks) {
  check_all({{1, 1, 1, 20, 20, 8, 8}, {-1, 0}});
  check_all({{1, 2, 1, 23, 9, 8, 8}, {-1, 0}});  // rows that see nothing
  check_all({{1, 1, 1, 9, 35, 8, 8}, {3, 2}});
}

TEST(lengths_and_what_lies_behind_them) {
  Case c{{3, 1, 1, 18, 21, 8, 8}, {-1, 0}};
  c.queries = {18, 0, 7}, c.keys = {21, 13, 0}, c.hidden_nan = true;
  check_all(c);
  c.keys = {5, 21, 17}, c.offsets = {0, 4, -3};
  check_all(c);
}

TEST(hard_numbers) {
  Case c{{1, 1, 1, 9, 70, 16, 16}, {}};
  c.data = growing;
  check_all(c);
  c.data = huge;
  check_all(c);
  c.data = normal, c.scale = -0.5;
  check_all(c);
}

TEST(partial_results) { check_all({{1, 2, 2, 6, 18, 8, 8}, {}}, true); }

TEST(no_keys_and_no_values) {
  check_all({{1, 1, 1, 3, 0, 8, 8}, {}});
  check_all({{1, 1, 1, 3, 4, 8, 0}, {}});
  check_all({{0, 1, 1, 3, 4, 8, 8}, {}});
}
