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
  // Of each row: the largest |v| that it sees, times what dropout multiplies by; the largest
  // |logit| of a weight above 0, and the largest scale * sum |q_d k_d|; whether it sees anything.
  std::vector<double> largest, logit, terms;
  std::vector<bool> sees;
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

// How a reference computes: in wide arithmetic, or (low) as plain does, products accumulated in the
// accumulator, and scores, probabilities and results rounded to T. Wide is long double for float64.
template <class T> struct Arithmetic {
  using A = accumulator_t<T>;
  using Real = std::conditional_t<std::is_same_v<T, double>, long double, double>;
  bool low;

  template <class To = T> Real round(Real y) const {
    return low ? Real(device::rounded<To>(double(y))) : y;
  }
  // Beyond float16's range they are kept: infinities would judge nothing.
  Real round_kept(Real y) const { return std::isinf(round(y)) ? Real(A(y)) : round(y); }
  Real add(Real sum, Real y) const { return low ? Real(A(sum + y)) : sum + y; }
};

// One query row before its values: of each key what e^(logit - m) is, whether it is seen, and the
// score before a softcap.
template <class T> struct Weights {
  using Real = typename Arithmetic<T>::Real;
  std::vector<Real> weight, raw;
  std::vector<bool> seen;
  Real m, l = 0, sink = 0;    // of a sink, its weight
  Real terms = 0, logit = 0;  // as in Result

  Weights(const Case& c, const Numbers& x, Arithmetic<T> in, const Mask& position, int64_t used,
          int64_t b, int64_t h, int64_t i)
      : weight(c.shape.keys, -INFINITY), raw(c.shape.keys), seen(c.shape.keys) {
    constexpr Real most = most_added<accumulator_t<T>>;
    const Shape& s = c.shape;
    const int64_t kv = b * s.kv_heads + h / (s.heads / s.kv_heads);
    const double* q = x.q.data() + ((b * s.heads + h) * s.queries + i) * s.dim;
    const Real own = c.sinks && i < used ? Real(x.sinks[h]) : Real(-INFINITY);
    m = own;
    for (int64_t j = 0; j < s.keys; ++j) {
      if (i >= used || !x.sees(c, position, b, h, i, j)) continue;
      seen[j] = true;
      Real dot = 0, sizes = 0;
      for (int64_t d = 0; d < s.dim; ++d) {
        Real product = Real(q[d]) * Real(x.k[(kv * s.keys + j) * s.dim + d]);
        dot = in.add(dot, product), sizes += std::fabs(product);
      }
      terms = std::max(terms, sizes * Real(std::fabs(c.used_scale())));
      Real y = raw[j] = dot * Real(c.used_scale());
      if (c.softcap != 0) y = Real(c.softcap) * std::tanh(y / Real(c.softcap));
      if (c.slopes)
        y -= Real(x.slopes[b * s.heads + h]) * Real(std::llabs(i + position.offset - j));
      if (c.additive()) y += std::clamp(Real(x.mask_at(b, h, i, j)), -most, most);
      weight[j] = in.round_kept(y);
      m = weight[j] > m || std::isnan(weight[j]) ? weight[j] : m;
    }
    for (Real& y : weight) {
      Real e = m == -INFINITY ? 0 : std::exp(y - m);
      if (e > 0) logit = std::max(logit, std::fabs(y));
      y = e, l = in.add(l, y);
    }
    if (m != -INFINITY) sink = own == -INFINITY ? 0 : std::exp(own - m), l = in.add(l, sink);
  }
  bool sees() const { return std::find(seen.begin(), seen.end(), true) != seen.end(); }
};

template <class T> Result reference(const Case& c, const Numbers& x, bool low) {
  const Arithmetic<T> in{low};
  using Real = typename Arithmetic<T>::Real;
  const Shape& s = c.shape;
  const double kept = kept_factor(c.dropout.p);
  Result r;
  for (int64_t b = 0; b < s.batch; ++b) {
    int64_t used;
    Mask position = c.mask(b, used);
    for (int64_t h = 0; h < s.heads; ++h) {
      int64_t kv = b * s.kv_heads + h / (s.heads / s.kv_heads);
      for (int64_t i = 0; i < s.queries; ++i) {
        const Weights<T> row(c, x, in, position, used, b, h, i);
        r.lse.push_back(double(row.m == -INFINITY ? row.m : row.m + std::log(row.l)));
        r.terms.push_back(double(row.terms)), r.logit.push_back(double(row.logit));
        r.sees.push_back(row.sees());
        double largest = 0;
        for (int64_t j = 0; j < s.keys; ++j)
          for (int64_t d = 0; row.seen[j] && d < s.value_dim; ++d)
            if (double size = std::fabs(x.v[(kv * s.keys + j) * s.value_dim + d]); size < INFINITY)
              largest = std::max(largest, size);
        r.largest.push_back(largest * std::max(kept, 1.0));
        for (int64_t d = 0; d < s.value_dim; ++d) {
          Real o = 0;
          for (int64_t j = 0; j < s.keys; ++j) {
            if (!row.seen[j]) continue;
            Real p = row.l == 0 ? row.weight[j] : row.weight[j] / row.l;  // of -inf alone: 0
            p = keeps(c.dropout, b, h, i, j) ? p * Real(kept) : Real(0);
            o = in.add(o, in.round(p) * Real(x.v[(kv * s.keys + j) * s.value_dim + d]));
          }
          r.out.push_back(double(in.round(o)));
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
  size_t wrong_specials = 0, wrong_zeros = 0, n = 0;
  const size_t columns = exact.largest.empty() ? 1 : exact.out.size() / exact.largest.size();
  for (size_t i = 0; i < exact.out.size(); ++i)
    if (std::isfinite(exact.out[i]) && std::isfinite(plain.out[i]))
      plain_max = std::max(plain_max, std::fabs(plain.out[i] - exact.out[i]));
  for (size_t i = 0; i < exact.out.size(); ++i) {
    wrong_specials += !same_special(got[i], exact.out[i]);
    wrong_zeros += !exact.sees[i / columns] && got[i] != 0;
    if (!std::isfinite(exact.out[i]) || !std::isfinite(got[i])) continue;
    ++n;
    double largest = exact.largest[i / columns], eps = device::eps<accumulator_t<T>>();
    double floor = device::ulp<Out>(largest) + 4 * eps * largest;
    if (std::is_same_v<T, double>)
      floor = std::max(floor, 1e-12 * largest * std::max(1.0, exact.logit[i / columns] / 1e3));
    double error = std::fabs(got[i] - exact.out[i]);
    if (error - 2 * plain_max - floor > over) over = error - 2 * plain_max - floor, worst = error;
    error_sum += error, floor_sum += floor;
    if (std::isfinite(plain.out[i])) plain_sum += std::fabs(plain.out[i] - exact.out[i]);
  }
  char text[400];
  std::snprintf(
      text, sizeof text,
      ": worst error %.3g, too much by %.3g; mean %.3g; plain %.3g, mean %.3g; %zu NaN or "
      "infinities in the wrong places; %zu numbers of rows that see nothing",
      worst, over, n ? error_sum / n : 0, plain_max, n ? plain_sum / n : 0, wrong_specials,
      wrong_zeros);
  check::report(!wrong_specials && !wrong_zeros && over <= 0 &&
                    error_sum <= 1.25 * plain_sum + floor_sum / 8,
                __FILE__, __LINE__, what + text);
}

// lse: an ulp at max(1, |lse|), a rounding of the largest logit, and what a sum of dim products may
// be wrong by (compare.py has the source).
template <class A>
void judge_lse(const std::string& what, const std::vector<double>& got, const Result& exact,
               int64_t dim) {
  for (size_t i = 0; i < exact.lse.size(); ++i) {
    double lse = exact.lse[i], size = std::max(1.0, std::fabs(lse));
    double roundings = exact.logit[i] + std::sqrt(double(dim)) * exact.terms[i];
    double allowed = device::ulp<A>(size) + device::eps<A>() * roundings;
    if (std::is_same_v<A, double>) allowed = 1e-12 * std::max(size, exact.logit[i]);
    bool fine = std::isfinite(lse) ? std::fabs(got[i] - lse) <= allowed : same_special(got[i], lse);
    if (!fine) check::report_close(got[i], lse, 0, __FILE__, __LINE__, what.c_str(), "exact");
  }
}

}  // namespace attention_case
