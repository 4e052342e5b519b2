// The gradients of a case on the device, and what came out of them, held against the oracle.
#pragma once

#include <cstring>

#include "device_problem.hpp"
#include "gradient_oracle.hpp"

namespace attention_case {

// What is asked beside the case. Each differs from what most calls ask.
struct Wanted {
  bool dlse = false;
  bool dbias = false;  // of an additive mask
};

// Out: of out and dout.
template <class T, class Out = T> class DeviceGradients {
  using A = accumulator_t<T>;
  using Real = typename Arithmetic<T>::Real;

  DeviceProblem<T, Out> forward_;
  Upstream up_;
  GradientSums<T> exact_, plain_;
  Operand<Out> dout_;
  Operand<T> dq_, dk_, dv_;
  device::Buffer<A> dlse_, dsinks_;
  device::Buffer<uint8_t> dbias_;

  static Upstream upstream(const DeviceProblem<T, Out>& forward, bool dlse) {
    Upstream up(forward.asked(), forward.numbers(), dlse);
    for (double& y : up.dout) y = device::rounded<Out>(y);
    for (double& y : up.dlse) y = device::rounded<A>(y);
    return up;
  }
  static int64_t size(const std::vector<Real>& x) { return int64_t(x.size()); }

 public:
  Problem p;

  DeviceGradients(const Case& c, Dtype dtype, Wanted wanted = {})
      : forward_(c, dtype), up_(upstream(forward_, wanted.dlse)),
        exact_(c, forward_.numbers(), up_, false), plain_(c, forward_.numbers(), up_, true),
        dout_(up_.dout, c.shape.value_dim, c.strides == repeated ? dense : c.strides),
        dq_(size(exact_.dq.x), c.shape.dim, c.strides),
        dk_(size(exact_.dk.x), c.shape.dim, c.strides),
        dv_(size(exact_.dv.x), c.shape.value_dim, c.strides),
        dlse_(device::narrow_all<A>(up_.dlse)), dsinks_(exact_.dsinks.x.size()),
        dbias_(wanted.dbias ? exact_.dbias.x.size() * size_t(size_of(c.mask_dtype)) : 0) {
    forward_.write_exact();
    const Shape& s = c.shape;
    p = forward_.p;
    Gradient& g = p.gradient;
    g.dout = dout_.tensor(s.heads, s.queries), g.dq = dq_.tensor(s.heads, s.queries);
    g.dk = dk_.tensor(s.kv_heads, s.keys), g.dv = dv_.tensor(s.kv_heads, s.keys);
    if (wanted.dlse) g.dlse = {dlse_.data(), s.heads * s.queries, s.queries, 1, 0};
    g.bias = wanted.dbias, g.sinks = c.sinks;
    if (g.sinks) g.dsinks = {dsinks_.data(), 0, 1, 0, 0};
    if (!g.bias) return;
    const Shape& m = forward_.numbers().mask_shape;
    g.dbias = p.mask, g.dbias.data = dbias_.data();
    g.bias_batch = m.batch != 1, g.bias_head = m.heads != 1;
    g.bias_row = m.queries != 1, g.bias_column = m.keys != 1;
  }

  const Numbers& numbers() const { return forward_.numbers(); }

  // Of what has just been launched.
  void judge(const std::string& kernel) const {
    device::finish();
    const std::string what = kernel + " " + forward_.text();
    const double logit = double(exact_.logit);
    auto check = [&]<class To>(const char* name, const std::vector<double>& got,
                               const Sums<Real>& exact, const Sums<Real>& plain, To) {
      judge_gradient<T, To>(what + ": " + name, got, exact, plain, logit);
    };
    check("dq", dq_.values(), exact_.dq, plain_.dq, T{});
    check("dk", dk_.values(), exact_.dk, plain_.dk, T{});
    check("dv", dv_.values(), exact_.dv, plain_.dv, T{});
    if (p.gradient.sinks) {
      std::vector<double> got;
      for (A y : dsinks_.values()) got.push_back(double(y));
      check("dsinks", got, exact_.dsinks, plain_.dsinks, A{});
    }
    if (!p.gradient.bias) return;
    device::with_type(p.mask_dtype, [&]<class M>() {
      const std::vector<uint8_t> bytes = dbias_.values();
      std::vector<double> got;
      for (size_t at = 0; at < bytes.size(); at += sizeof(M)) {
        M element;
        std::memcpy(&element, &bytes[at], sizeof element);
        got.push_back(device::widen(element));
      }
      check("dbias", got, exact_.dbias, plain_.dbias, M{});
    });
  }
};

// What a caller runs: of each dtype the first row that takes the problem.
template <class T, class Out> void check_gradients(const Case& c, Dtype dtype, Wanted wanted = {}) {
  DeviceGradients<T, Out> problem(c, dtype, wanted);
  for (const cuda::BackwardKernel* kernel : cuda::all_backward_kernels) {
    if (kernel->dtype != dtype || !kernel->takes(problem.p)) continue;
    const device::Buffer<uint8_t> workspace(size_t(kernel->workspace(problem.p)));
    device::check(kernel->launch(problem.p, workspace.data(), nullptr));
    return problem.judge(kernel->name);
  }
  CHECK(!"some variant takes it");
}

}  // namespace attention_case
