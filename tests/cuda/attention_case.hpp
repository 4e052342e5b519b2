// One problem of attention for the tests of kernels: its data, its float64 oracle, and the rule
// that judges a result (tests/python/compare.py has it in words).
#pragma once

#include <random>

#include "../cpp/check.hpp"
#include "device.hpp"
#include "math/mask.hpp"

namespace attention_case {

using namespace fanano;

enum Data { normal, growing, huge, far_below };

struct Case {
  Shape shape;
  Window window{};
  double scale = 0;  // 0: 1/sqrt(dim)
  Data data = normal;
  std::vector<int64_t> queries{}, keys{},
      offsets{};            // of each sequence; empty: full, the lower right
  bool hidden_nan = false;  // NaN and infinities in keys and values that no row sees

  double used_scale() const { return scale ? scale : 1 / std::sqrt(double(shape.dim)); }
  Mask mask(int64_t b, int64_t& used_queries) const {
    auto list = [](const std::vector<int64_t>& v) { return v.empty() ? nullptr : v.data(); };
    Sequence s = sequence(b, shape.queries, shape.keys, list(queries), list(keys), list(offsets));
    used_queries = s.queries;
    return make_mask(s, window.left, window.right);
  }
};

// (batch, heads, rows, columns), contiguous.
struct Numbers {
  std::vector<double> q, k, v;

  explicit Numbers(const Case& c) {
    const Shape& s = c.shape;
    std::mt19937 random(static_cast<unsigned>(s.queries * 131 + s.keys * 7 + s.dim));
    std::normal_distribution<double> draw;
    auto fill = [&](std::vector<double>& x, int64_t n) {
      for (int64_t i = 0; i < n; ++i) x.push_back(draw(random));
    };
    fill(q, s.batch * s.heads * s.queries * s.dim);
    fill(k, s.batch * s.kv_heads * s.keys * s.dim);
    fill(v, s.batch * s.kv_heads * s.keys * s.value_dim);
    if (c.data == huge)
      for (double& x : q) x *= 300;
    if (c.data == growing)  // the first column raises the scores along the keys
      for (size_t i = 0; i < k.size(); ++i)
        if (i % s.dim == 0) k[i] = 0.25 * double(int64_t(i) / s.dim % s.keys);
    if (c.data == growing)
      for (size_t i = 0; i < q.size(); i += s.dim) q[i] = std::fabs(q[i]) + 1;
    if (c.data == far_below) {  // every score is: e^score is 0
      for (size_t i = 0; i < k.size(); i += s.dim) k[i] = -60;
      for (size_t i = 0; i < q.size(); i += s.dim) q[i] = 30;
    }
    if (!c.hidden_nan) return;
    for (int64_t b = 0; b < s.batch; ++b) {
      int64_t used;
      Mask mask = c.mask(b, used);
      for (int64_t j = 0; j < s.keys; ++j) {
        bool seen = false;
        for (int64_t i = 0; i < used; ++i) seen |= mask.visible(i, j);
        for (int64_t h = 0; h < s.kv_heads && !seen; ++h) {
          int64_t row = (b * s.kv_heads + h) * s.keys + j;
          for (int64_t d = 0; d < s.dim; ++d) k[row * s.dim + d] = j % 2 ? NAN : INFINITY;
          for (int64_t d = 0; d < s.value_dim; ++d) v[row * s.value_dim + d] = NAN;
        }
      }
    }
  }
};

struct Result { std::vector<double> out, lse; };

// In float64, or (low) as plain computes: products accumulated in float32, and scores,
// probabilities and output rounded to T.
template <class T> Result reference(const Case& c, const Numbers& x, bool low) {
  const Shape& s = c.shape;
  auto round = [&](double y) { return low ? device::rounded<T>(y) : y; };
  auto add = [&](double sum, double y) { return low ? double(float(sum + y)) : sum + y; };
  Result r;
  for (int64_t b = 0; b < s.batch; ++b) {
    int64_t used;
    Mask mask = c.mask(b, used);
    for (int64_t h = 0; h < s.heads; ++h) {
      int64_t kv = b * s.kv_heads + h / (s.heads / s.kv_heads);
      for (int64_t i = 0; i < s.queries; ++i) {
        const double* q = &x.q[((b * s.heads + h) * s.queries + i) * s.dim];
        std::vector<double> p(s.keys, -INFINITY);
        double m = -INFINITY, l = 0;
        for (int64_t j = 0; j < s.keys; ++j) {
          if (i >= used || !mask.visible(i, j)) continue;
          double dot = 0;
          for (int64_t d = 0; d < s.dim; ++d)
            dot = add(dot, q[d] * x.k[(kv * s.keys + j) * s.dim + d]);
          p[j] = round(dot * c.used_scale());
          m = std::max(m, p[j]);
        }
        for (double& y : p) y = m == -INFINITY ? 0 : std::exp(y - m), l = add(l, y);
        r.lse.push_back(m == -INFINITY ? m : m + std::log(l));
        for (int64_t d = 0; d < s.value_dim; ++d) {
          double o = 0;
          for (int64_t j = 0; j < s.keys; ++j)
            if (i < used && mask.visible(i, j))
              o = add(o, round(l == 0 ? 0 : p[j] / l) * x.v[(kv * s.keys + j) * s.value_dim + d]);
          r.out.push_back(round(o));
        }
      }
    }
  }
  return r;
}

// The rule: at most twice plain's largest error anywhere, a quarter more on average, and a floor.
template <class T>
void judge(const std::string& what, const std::vector<double>& got,
           const std::vector<double>& exact, const std::vector<double>& plain) {
  double largest = 0, error_max = 0, error_sum = 0, plain_max = 0, plain_sum = 0;
  for (double x : exact) largest = std::max(largest, std::fabs(x));
  double floor = device::ulp<T>(largest) + 4 * 0x1p-23 * largest;
  bool special = false;
  for (size_t i = 0; i < exact.size(); ++i) {
    special |= !std::isfinite(got[i]);
    error_max = std::max(error_max, std::fabs(got[i] - exact[i]));
    plain_max = std::max(plain_max, std::fabs(plain[i] - exact[i]));
    error_sum += std::fabs(got[i] - exact[i]), plain_sum += std::fabs(plain[i] - exact[i]);
  }
  double n = double(exact.size());
  char text[300];
  std::snprintf(text, sizeof text, "%s: errors %.3g, mean %.3g; plain %.3g, mean %.3g; floor %.3g",
                what.c_str(), error_max, error_sum / n, plain_max, plain_sum / n, floor);
  check::report(!special && error_max <= 2 * plain_max + floor &&
                    error_sum <= 1.25 * plain_sum + n * floor / 8,
                __FILE__, __LINE__, text);
}

// lse: an ulp of float32 at max(1, |lse|), and a rounding of the largest logit. A logit is a sum of
// dim products, each of which may be rounded.
inline void judge_lse(const std::string& what, const std::vector<double>& got,
                      const std::vector<double>& exact, double largest_logit, int64_t dim) {
  for (size_t i = 0; i < exact.size(); ++i) {
    double size = std::max(1.0, std::fabs(exact[i]));
    double roundings = std::sqrt(double(dim)) + 2;
    bool fine = check::close(got[i], exact[i],
                             device::ulp<float>(size) + largest_logit * 0x1p-23 * roundings);
    if (!fine) check::report_close(got[i], exact[i], 0, __FILE__, __LINE__, what.c_str(), "exact");
  }
}

}  // namespace attention_case
