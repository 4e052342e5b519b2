// A case of attention on the device, and what came out of it, held against the oracle.
#pragma once

#include "attention_oracle.hpp"
#include "kernels_table.hpp"

namespace attention_case {

// (batch, heads, rows, columns) on the device: contiguous, or with gaps of NaN in rows and between
// them.
template <class T> class Operand {
  int64_t n_, columns_, step_, row_;
  device::Buffer<T> memory_;

  std::vector<T> spread(const std::vector<double>& x) const {
    std::vector<T> all(size_t(n_ / std::max<int64_t>(columns_, 1) * row_), device::narrow<T>(NAN));
    for (size_t i = 0; i < x.size(); ++i) all[at(i)] = device::narrow<T>(x[i]);
    return all;
  }
  size_t at(size_t i) const {
    return size_t(int64_t(i) / columns_ * row_ + int64_t(i) % columns_ * step_);
  }

 public:
  // `odd`: every second number of a row alone, and three more after it.
  Operand(const std::vector<double>& x, int64_t columns, bool odd)
      : n_(int64_t(x.size())), columns_(columns), step_(odd ? 2 : 1),
        row_(odd ? 2 * columns + 3 : columns), memory_(spread(x)) {}
  // For results: nothing has been written, but to gaps.
  Operand(int64_t n, int64_t columns, bool odd)
      : n_(n), columns_(columns), step_(odd ? 2 : 1), row_(odd ? 2 * columns + 3 : columns),
        memory_(odd ? device::Buffer<T>(spread({})) : device::Buffer<T>(size_t(n))) {}

  Tensor tensor(int64_t heads, int64_t rows) const {
    return {memory_.data(), heads * rows * row_, rows * row_, row_, step_};
  }
  std::vector<double> values() const {
    const std::vector<T> all = memory_.values();
    std::vector<double> x;
    for (size_t i = 0; i < size_t(n_); ++i) x.push_back(device::widen(all[at(i)]));
    return x;
  }
};

// Out: T, or the accumulator for results that are to be merged.
template <class T, class Out = T> class DeviceProblem {
  using A = accumulator_t<T>;
  template <class V> using Buffer = device::Buffer<V>;

  Case c_;
  Numbers x_;
  Result exact_, plain_;
  Operand<T> q_, k_, v_;
  Operand<Out> out_;
  Buffer<A> lse_;
  Buffer<int64_t> queries_, keys_, offsets_;
  Buffer<double> slopes_, sinks_;
  Buffer<uint8_t> mask_;

  static Numbers numbers(const Case& c) {
    Numbers x(c);
    for (std::vector<double>* all : {&x.q, &x.k, &x.v})
      for (double& y : *all) y = device::rounded<T>(y);
    if (c.additive())
      device::with_type(c.mask_dtype, [&]<class M>() {
        for (double& y : x.mask) y = device::rounded<M>(y);
      });
    return x;
  }
  static std::vector<uint8_t> mask_bytes(const Case& c, const Numbers& x) {
    std::vector<uint8_t> bytes;
    if (!c.additive()) return {x.mask.begin(), x.mask.end()};
    device::with_type(c.mask_dtype, [&]<class M>() {
      for (double y : x.mask) {
        M element = device::narrow<M>(y);
        auto begin = reinterpret_cast<const uint8_t*>(&element);
        bytes.insert(bytes.end(), begin, begin + sizeof(M));
      }
    });
    return bytes;
  }

 public:
  Problem p;

  DeviceProblem(const Case& c, Dtype dtype)
      : c_(c), x_(numbers(c)), exact_(reference<T>(c, x_, false)),
        plain_(reference<T>(c, x_, true)), q_(x_.q, c.shape.dim, c.odd_strides),
        k_(x_.k, c.shape.dim, c.odd_strides), v_(x_.v, c.shape.value_dim, c.odd_strides),
        out_(int64_t(exact_.out.size()), c.shape.value_dim, c.odd_strides), lse_(exact_.lse.size()),
        queries_(c.queries), keys_(c.keys), offsets_(c.offsets), slopes_(x_.slopes),
        sinks_(x_.sinks), mask_(mask_bytes(c, x_)) {
    const Shape& s = c.shape;
    p.dtype = dtype, p.out_dtype = std::is_same_v<T, Out> ? dtype : Dtype::float32, p.shape = s;
    p.q = q_.tensor(s.heads, s.queries), p.out = out_.tensor(s.heads, s.queries);
    p.k = k_.tensor(s.kv_heads, s.keys), p.v = v_.tensor(s.kv_heads, s.keys);
    p.lse = {lse_.data(), s.heads * s.queries, s.queries, 1, 0};
    p.score.scale = c.used_scale(), p.score.softcap = c.softcap, p.window = c.window;
    if (c.slopes) p.score.slopes = slopes_.data();
    if (c.sinks) p.score.sinks = sinks_.data();
    if (!c.queries.empty()) p.lengths.queries = queries_.data();
    if (!c.keys.empty()) p.lengths.keys = keys_.data();
    if (!c.offsets.empty()) p.lengths.q_offset = offsets_.data();
    p.dropout = c.dropout;
    if (!c.masked) return;
    const Shape& m = x_.mask_shape;
    auto stride = [](int64_t n, int64_t elements) { return n == 1 ? 0 : elements; };
    p.mask_dtype = c.mask_dtype;
    p.mask = {mask_.data(), stride(m.batch, m.heads * m.queries * m.keys),
              stride(m.heads, m.queries * m.keys), stride(m.queries, m.keys), stride(m.keys, 1)};
  }

  // Of what has just been launched.
  std::vector<double> out() const { return out_.values(); }
  void judge(const std::string& kernel) const {
    device::finish();
    const Shape& s = c_.shape;
    std::string what = kernel + " dtype " + std::to_string(int(p.dtype)) + " heads " +
                       std::to_string(s.heads) + " queries " + std::to_string(s.queries) +
                       " keys " + std::to_string(s.keys) + " dim " + std::to_string(s.dim) + ", " +
                       std::to_string(s.value_dim);
    attention_case::judge<T, Out>(what, out_.values(), exact_, plain_);
    double largest = 0;
    for (double y : exact_.lse)
      if (std::isfinite(y)) largest = std::max(largest, std::fabs(y));
    std::vector<double> lse;
    for (A y : lse_.values()) lse.push_back(double(y));
    judge_lse<A>(what + " lse", lse, exact_.lse, largest, s.dim);
  }
};

}  // namespace attention_case
