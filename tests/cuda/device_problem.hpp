// A case of attention on the device, and what came out of it, held against the oracle.
#pragma once

#include "attention_oracle.hpp"
#include "kernels_table.hpp"

namespace attention_case {

// The launch that a caller makes, with the workspace that it wants.
inline cudaError_t launch(const cuda::FlashKernel& kernel, const Problem& p) {
  const device::Buffer<double> workspace(size_t(kernel.workspace(p) / 8));
  return kernel.launch(p, workspace.data(), nullptr);
}

// (batch, heads, rows, columns) on the device. What stands in gaps is NaN.
template <class T> class Operand {
  int64_t n_, columns_;
  Strides strides_;
  int64_t step_, row_;  // strides
  device::Buffer<T> memory_;

  size_t memory_size() const {
    return columns_ ? size_t(n_ / columns_ * std::max(row_, -row_)) : 0;
  }
  std::vector<T> spread(const std::vector<double>& x) const {
    std::vector<T> all(memory_size(), device::narrow<T>(NAN));
    for (size_t i = 0; i < x.size(); ++i) all[at(i)] = device::narrow<T>(x[i]);
    return all;
  }
  // The place of the first number, and of number i.
  int64_t first() const { return strides_ == reversed ? std::max<int64_t>(n_ - 1, 0) : 0; }
  size_t at(size_t i) const {
    return size_t(first() + int64_t(i) / columns_ * row_ + int64_t(i) % columns_ * step_);
  }

 public:
  // For results: nothing has been written, but to gaps. gaps: every second number of a row alone,
  // and three more after it.
  Operand(int64_t n, int64_t columns, Strides strides)
      : n_(n), columns_(columns), strides_(strides), step_(strides == reversed ? -1
                                                           : strides == gaps   ? 2
                                                                               : 1),
        row_(strides == gaps ? 2 * columns + 3 : columns * step_), memory_(memory_size()) {
    if (strides == gaps) memory_.fill(spread({}));
  }
  Operand(const std::vector<double>& x, int64_t columns, Strides strides)
      : Operand(int64_t(x.size()), columns, strides) {
    write(x);
  }
  void write(const std::vector<double>& x) { memory_.fill(spread(x)); }

  Tensor tensor(int64_t heads, int64_t rows) const {
    return {memory_.data() + first(), heads * rows * row_, rows * row_, row_, step_};
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
  Buffer<uint64_t> seed_;
  static constexpr uint32_t place[] = {1, 2, 3, 4};  // of dropout, as far as it is on the device
  Buffer<uint32_t> place_{std::vector(std::begin(place), std::end(place))};

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
        plain_(reference<T>(c, x_, true)), q_(x_.q, c.shape.dim, c.strides),
        k_(x_.k, c.shape.dim, c.strides), v_(x_.v, c.shape.value_dim, c.strides),
        out_(int64_t(exact_.out.size()), c.shape.value_dim, c.strides), lse_(exact_.lse.size()),
        queries_(c.queries), keys_(c.keys), offsets_(c.offsets), slopes_(x_.slopes),
        sinks_(x_.sinks), mask_(mask_bytes(c, x_)), seed_(std::vector{c.dropout.seed}) {
    const Shape& s = c.shape;
    p.dtype = dtype, p.out_dtype = std::is_same_v<T, Out> ? dtype : Dtype::float32, p.shape = s;
    p.q = q_.tensor(s.heads, s.queries), p.out = out_.tensor(s.heads, s.queries);
    p.k = k_.tensor(s.kv_heads, s.keys), p.v = v_.tensor(s.kv_heads, s.keys);
    p.lse = {lse_.data(), s.heads * s.queries, s.queries, 1, 0};
    p.score.scale = c.used_scale(), p.score.softcap = c.softcap, p.window = c.window;
    if (c.strides == repeated) p.q.batch = p.k.batch = p.v.batch = 0;
    if (c.slopes) p.score.slopes = slopes_.data(), p.score.slopes_batch = s.heads;
    if (c.sinks) p.score.sinks = sinks_.data();
    if (!c.queries.empty()) p.lengths.queries = queries_.data();
    if (!c.keys.empty()) p.lengths.keys = keys_.data();
    if (!c.offsets.empty()) p.lengths.q_offset = offsets_.data();
    p.dropout = c.dropout;
    if (c.device_seed) {
      Dropout& d = p.dropout;
      d.seed = ~d.seed, d.device_seed = seed_.data(), d.device_place = place_.data();
      d.batch -= place[0], d.head -= place[1], d.row -= place[2], d.column -= place[3];
    }
    if (!c.masked) return;
    const Shape& m = x_.mask_shape;
    auto stride = [](int64_t n, int64_t elements) { return n == 1 ? 0 : elements; };
    p.mask_dtype = c.mask_dtype;
    p.mask = {mask_.data(), stride(m.batch, m.heads * m.queries * m.keys),
              stride(m.heads, m.queries * m.keys), stride(m.queries, m.keys), stride(m.keys, 1)};
  }

  const Numbers& numbers() const { return x_; }
  const Case& asked() const { return c_; }
  std::string text() const { return "dtype " + std::to_string(int(p.dtype)) + ", " + c_.text(); }

  // out and lse as they should be, for backward to read.
  void write_exact() {
    out_.write(exact_.out);
    lse_.fill(device::narrow_all<A>(exact_.lse));
  }

  // Of what has just been launched.
  std::vector<double> out() const { return out_.values(); }
  void judge(const std::string& kernel) const {
    device::finish();
    const std::string what = kernel + " " + text();
    attention_case::judge<T, Out>(what, out_.values(), exact_, plain_);
    std::vector<double> lse;
    for (A y : lse_.values()) lse.push_back(double(y));
    judge_lse<A>(what + ": lse", lse, exact_, c_.shape.dim);
  }
};

}  // namespace attention_case
