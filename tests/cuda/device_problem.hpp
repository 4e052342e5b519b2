// A case of attention on the device, and what came out of it, held against float64.
#pragma once

#include "attention_case.hpp"
#include "kernels_table.hpp"

namespace attention_case {

// (batch, heads, rows, columns), contiguous.
inline Tensor tensor(void* data, int64_t heads, int64_t rows, int64_t columns) {
  return {data, heads * rows * columns, rows * columns, columns, 1};
}

template <class T> class DeviceProblem {
  template <class V> using Buffer = device::Buffer<V>;

  Case c_;
  bool partial_;
  Numbers x_;
  Result exact_, plain_;
  Buffer<T> q_, k_, v_, out_;
  Buffer<float> lse_, wide_;
  Buffer<int64_t> queries_, keys_, offsets_;

  static std::vector<double> rounded(const std::vector<double>& x) {
    std::vector<double> all;
    for (double y : x) all.push_back(device::rounded<T>(y));
    return all;
  }
  static std::vector<double> widen(const auto& x) {
    std::vector<double> all;
    for (auto y : x) all.push_back(device::widen(y));
    return all;
  }
  static Numbers numbers(const Case& c) {
    Numbers x(c);
    x.q = rounded(x.q), x.k = rounded(x.k), x.v = rounded(x.v);
    return x;
  }

 public:
  Problem p;

  // partial: out is float32.
  DeviceProblem(const Case& c, Dtype dtype, bool partial)
      : c_(c), partial_(partial), x_(numbers(c)), exact_(reference<T>(c, x_, false)),
        plain_(reference<T>(c, x_, true)), q_(device::narrow_all<T>(x_.q)),
        k_(device::narrow_all<T>(x_.k)), v_(device::narrow_all<T>(x_.v)), out_(exact_.out.size()),
        lse_(exact_.lse.size()), wide_(exact_.out.size()), queries_(c.queries), keys_(c.keys),
        offsets_(c.offsets) {
    const Shape& s = c.shape;
    p.dtype = dtype, p.out_dtype = partial ? Dtype::float32 : dtype, p.shape = s;
    p.q = tensor(q_.data(), s.heads, s.queries, s.dim);
    p.k = tensor(k_.data(), s.kv_heads, s.keys, s.dim);
    p.v = tensor(v_.data(), s.kv_heads, s.keys, s.value_dim);
    p.out = tensor(partial ? static_cast<void*>(wide_.data()) : out_.data(), s.heads, s.queries,
                   s.value_dim);
    p.lse = {lse_.data(), s.heads * s.queries, s.queries, 1, 0};
    p.score.scale = c.used_scale(), p.window = c.window;
    if (!c.queries.empty()) p.lengths.queries = queries_.data();
    if (!c.keys.empty()) p.lengths.keys = keys_.data();
    if (!c.offsets.empty()) p.lengths.q_offset = offsets_.data();
  }

  // Of what has just been launched.
  void judge(const std::string& kernel) const {
    device::finish();
    const Shape& s = c_.shape;
    std::string what = kernel + " dtype " + std::to_string(int(p.dtype)) + " heads " +
                       std::to_string(s.heads) + " queries " + std::to_string(s.queries) +
                       " keys " + std::to_string(s.keys);
    attention_case::judge<T>(what, partial_ ? widen(wide_.values()) : widen(out_.values()),
                             exact_.out, plain_.out);
    double largest = 0;
    for (double y : exact_.lse)
      if (std::isfinite(y)) largest = std::max(largest, std::fabs(y));
    judge_lse(what + " lse", widen(lse_.values()), exact_.lse, largest, s.dim);
  }
};

}  // namespace attention_case
