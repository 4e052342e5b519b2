// What a case of attention should give, and the rule that judges what a kernel gave
// (tests/python/compare.py has it in words).
#pragma once

#include "../cpp/check.hpp"
#include "attention_case.hpp"
#include "device.hpp"
#include "math/dropout.hpp"
#include "math/score.hpp"

namespace attention_case {

struct Result {
  std::vector<double> out, lse;
  std::vector<double> largest;  // |v| that a row sees, times what dropout multiplies by
};

// Whether dropout keeps a pair.
inline bool keeps(const Dropout& d, int64_t b, int64_t h, int64_t i, int64_t j) {
  if (d.p == 0) return true;
  if (d.p == 1) return false;
  const uint64_t column = uint64_t(d.column + j);
  const FourWords<uint32_t> words = philox(
      {uint32_t(column / 4), uint32_t(d.row + i), uint32_t(d.head + h), uint32_t(d.batch + b)},
      d.seed);
  return words.x[column % 4] >= least_kept(d.p);
}

// In wide arithmetic, or (low) as plain computes: products accumulated in the accumulator, and
// scores, probabilities and output rounded to T. Wide is long double for float64.
template <class T> Result reference(const Case& c, const Numbers& x, bool low) {
  constexpr bool is_double = std::is_same_v<T, double>;
  using Real = std::conditional_t<is_double, long double, double>;
  using A = accumulator_t<T>;
  const Shape& s = c.shape;
  auto round = [&](Real y) { return low ? Real(device::rounded<T>(double(y))) : y; };
  auto add = [&](Real sum, Real y) { return low ? Real(A(sum + y)) : sum + y; };
  const double kept = kept_factor(c.dropout.p);
  Result r;
  for (int64_t b = 0; b < s.batch; ++b) {
    int64_t used;
    Mask position = c.mask(b, used);
    for (int64_t h = 0; h < s.heads; ++h) {
      int64_t kv = b * s.kv_heads + h / (s.heads / s.kv_heads);
      for (int64_t i = 0; i < s.queries; ++i) {
        const double* q = &x.q[((b * s.heads + h) * s.queries + i) * s.dim];
        std::vector<Real> p(s.keys, -INFINITY);
        std::vector<bool> seen(s.keys);
        const Real sink = c.sinks && i < used ? Real(x.sinks[h]) : Real(-INFINITY);
        Real m = sink, l = 0;
        for (int64_t j = 0; j < s.keys; ++j) {
          if (i >= used || !x.sees(c, position, b, h, i, j)) continue;
          seen[j] = true;
          Real dot = 0;
          for (int64_t d = 0; d < s.dim; ++d)
            dot = add(dot, Real(q[d]) * Real(x.k[(kv * s.keys + j) * s.dim + d]));
          Real y = dot * Real(c.used_scale());
          if (c.softcap != 0) y = Real(c.softcap) * std::tanh(y / Real(c.softcap));
          if (c.slopes) y -= Real(x.slopes[h]) * Real(std::llabs(i + position.offset - j));
          if (c.additive()) {  // finite numbers stay finite
            const Real more = Real(x.mask_at(b, h, i, j)), most = Real(most_added<A>);
            y += std::isfinite(more) ? std::clamp(more, -most, most) : more;
          }
          p[j] = round(y);
          m = std::max(m, p[j]);
        }
        for (Real& y : p) y = m == -INFINITY ? 0 : std::exp(y - m), l = add(l, y);
        if (m != -INFINITY) l = add(l, std::exp(sink - m));
        r.lse.push_back(double(m == -INFINITY ? m : m + std::log(l)));
        double largest = 0;
        for (int64_t j = 0; j < s.keys; ++j)
          for (int64_t d = 0; seen[j] && d < s.value_dim; ++d)
            if (double size = std::fabs(x.v[(kv * s.keys + j) * s.value_dim + d]); size < INFINITY)
              largest = std::max(largest, size);
        r.largest.push_back(largest * std::max(kept, 1.0));
        for (int64_t d = 0; d < s.value_dim; ++d) {
          Real o = 0;
          for (int64_t j = 0; j < s.keys; ++j) {
            if (!seen[j]) continue;
            Real weight = keeps(c.dropout, b, h, i, j) ? p[j] / l * Real(kept) : Real(0);
            o = add(o, round(weight) * Real(x.v[(kv * s.keys + j) * s.value_dim + d]));
          }
          r.out.push_back(double(round(o)));
        }
      }
    }
  }
  return r;
}

inline bool same_special(double got, double exact) {
  if (std::isnan(exact) || std::isnan(got)) return std::isnan(exact) && std::isnan(got);
  return std::isinf(exact) || std::isinf(got) ? got == exact : true;
}

// The rule: at most twice plain's largest error anywhere, a quarter more on average, and a floor.
// NaN and infinities stand where they belong. Out is the type of the results, T of the inputs.
template <class T, class Out>
void judge(const std::string& what, const std::vector<double>& got, const Result& exact,
           const Result& plain) {
  double plain_max = 0, plain_sum = 0, error_sum = 0, floor_sum = 0, over = -INFINITY, worst = 0;
  size_t wrong_specials = 0, n = 0;
  const size_t columns = exact.largest.empty() ? 1 : exact.out.size() / exact.largest.size();
  for (size_t i = 0; i < exact.out.size(); ++i)
    if (std::isfinite(exact.out[i]) && std::isfinite(plain.out[i]))
      plain_max = std::max(plain_max, std::fabs(plain.out[i] - exact.out[i]));
  for (size_t i = 0; i < exact.out.size(); ++i) {
    wrong_specials += !same_special(got[i], exact.out[i]);
    if (!std::isfinite(exact.out[i]) || !std::isfinite(got[i])) continue;
    ++n;
    double largest = exact.largest[i / columns], eps = device::eps<accumulator_t<T>>();
    double floor = device::ulp<Out>(largest) + 4 * eps * largest;
    if (std::is_same_v<T, double>) floor = std::max(floor, 1e-12 * largest);
    double error = std::fabs(got[i] - exact.out[i]);
    if (error - 2 * plain_max - floor > over) over = error - 2 * plain_max - floor, worst = error;
    error_sum += error, floor_sum += floor;
    if (std::isfinite(plain.out[i])) plain_sum += std::fabs(plain.out[i] - exact.out[i]);
  }
  char text[400];
  std::snprintf(text, sizeof text,
                "%s: worst error %.3g, too much by %.3g; mean %.3g; plain %.3g, mean %.3g; %zu NaN "
                "or infinities in the wrong places",
                what.c_str(), worst, over, n ? error_sum / n : 0, plain_max, n ? plain_sum / n : 0,
                wrong_specials);
  check::report(!wrong_specials && over <= 0 && error_sum <= 1.25 * plain_sum + floor_sum / 8,
                __FILE__, __LINE__, text);
}

// lse: an ulp at max(1, |lse|), and a rounding of the largest logit. A logit is a sum of dim
// products, each of which may be rounded.
template <class A>
void judge_lse(const std::string& what, const std::vector<double>& got,
               const std::vector<double>& exact, double largest_logit, int64_t dim) {
  for (size_t i = 0; i < exact.size(); ++i) {
    double size = std::max(1.0, std::fabs(exact[i]));
    double roundings = std::sqrt(double(dim)) + 2;
    double allowed = device::ulp<A>(size) + largest_logit * device::eps<A>() * roundings;
    bool fine = std::isfinite(exact[i]) ? std::fabs(got[i] - exact[i]) <= allowed
                                        : same_special(got[i], exact[i]);
    if (!fine) check::report_close(got[i], exact[i], 0, __FILE__, __LINE__, what.c_str(), "exact");
  }
}

}  // namespace attention_case
