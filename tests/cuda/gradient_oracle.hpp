// What the gradients of a case should be, and the rule that judges what kernels gave
// (tests/python/oracle_gradients.py and compare.py have both in words).
#pragma once

#include "attention_oracle.hpp"
#include "math/gradient.hpp"

namespace attention_case {

// The gradients that come from above. hidden_nan: NaN in every row of dout that sees nothing.
struct Upstream {
  std::vector<double> dout, dlse;  // dlse empty: lse is in no use

  Upstream(const Case& c, const Numbers& x, bool with_dlse) {
    const Shape& s = c.shape;
    std::mt19937 random(static_cast<unsigned>(s.queries * 17 + s.keys + s.value_dim));
    std::normal_distribution<double> draw;
    for (int64_t i = 0; i < s.batch * s.heads * s.queries; ++i) {
      for (int64_t d = 0; d < s.value_dim; ++d) dout.push_back(draw(random));
      if (with_dlse) dlse.push_back(draw(random));
    }
    if (c.data != hidden_nan) return;
    for (int64_t b = 0; b < s.batch; ++b) {
      int64_t used;
      const Mask position = c.mask(b, used);
      for (int64_t i = 0; i < s.heads * s.queries; ++i) {
        bool sees = false;
        for (int64_t j = 0; j < s.keys && i % s.queries < used; ++j)
          sees |= x.sees(c, position, b, i / s.queries, i % s.queries, j);
        for (int64_t d = 0; d < s.value_dim && !sees; ++d)
          dout[(b * s.heads * s.queries + i) * s.value_dim + d] = NAN;
      }
    }
  }
};

// One gradient. Of each group of so many neighbours: the largest term of their sums, and the
// largest before anything inside a term cancels.
template <class Real> struct Sums {
  int64_t columns;
  std::vector<Real> x;
  std::vector<double> term, parts;

  Sums(int64_t groups, int64_t columns_) : columns(columns_), x(groups * columns) {
    term.resize(groups), parts.resize(groups);
  }
  void measure(int64_t group, Real of_term, Real of_parts) {  // NaN and infinities do not count
    if (std::isfinite(of_term)) term[group] = std::max(term[group], double(of_term));
    if (std::isfinite(of_parts)) parts[group] = std::max(parts[group], double(of_parts));
  }
};

template <class T> struct GradientSums {
  using Real = typename Arithmetic<T>::Real;
  Sums<Real> dq, dk, dv, dbias, dsinks;
  Real logit = 0;

  GradientSums(const Case& c, const Numbers& x, const Upstream& up, bool low)
      : dq(c.shape.batch * c.shape.heads * c.shape.queries, c.shape.dim),
        dk(c.shape.batch * c.shape.kv_heads * c.shape.keys, c.shape.dim),
        dv(c.shape.batch * c.shape.kv_heads * c.shape.keys, c.shape.value_dim),
        dbias(int64_t(x.mask.size()), 1), dsinks(int64_t(x.sinks.size()), 1), in_{low} {
    const Shape& s = c.shape;
    for (int64_t b = 0; b < s.batch; ++b) {
      int64_t used;
      const Mask position = c.mask(b, used);
      for (int64_t h = 0; h < s.heads; ++h)
        for (int64_t i = 0; i < s.queries; ++i)
          add_row(c, x, up, b, h, i, Weights<T>(c, x, in_, position, used, b, h, i));
    }
    for (Sums<Real>* all : {&dq, &dk, &dv})
      for (Real& y : all->x) y = in_.round(y);
    for (Real& y : dsinks.x) y = in_.template round<accumulator_t<T>>(y);
    if (c.additive())
      device::with_type(c.mask_dtype, [&]<class M>() {
        for (Real& y : dbias.x) y = in_.template round<M>(y);
      });
  }

 private:
  const Arithmetic<T> in_;

  // The largest number of a row that is finite.
  static Real most(const double* x, int64_t n) {
    Real largest = 0;
    for (int64_t d = 0; d < n; ++d)
      if (std::isfinite(x[d])) largest = std::max(largest, std::fabs(Real(x[d])));
    return largest;
  }

  void add_row(const Case& c, const Numbers& x, const Upstream& up, int64_t b, int64_t h, int64_t i,
               const Weights<T>& row) {
    const Shape& s = c.shape;
    const int64_t kv = b * s.kv_heads + h / (s.heads / s.kv_heads);
    const int64_t at = (b * s.heads + h) * s.queries + i;
    const double *q = x.q.data() + at * s.dim, *dout = up.dout.data() + at * s.value_dim;
    const Real dlse = up.dlse.empty() ? 0 : Real(up.dlse[at]),
               kept = Real(kept_factor(c.dropout.p));
    const Real most_q = most(q, s.dim), most_dout = most(dout, s.value_dim);
    auto normal = [&](Real weight) { return in_.round(row.l == 0 ? weight : weight / row.l); };
    auto keep = [&](int64_t j, Real y) { return keeps(c.dropout, b, h, i, j) ? y * kept : 0 * y; };
    logit = std::max(logit, row.logit);

    // delta, and of what sizes it is the sum
    std::vector<Real> p(s.keys), dp(s.keys), apart(s.keys);
    Real delta = 0, delta_apart = 0;
    for (int64_t j = 0; j < s.keys; ++j) {
      if (!row.seen[j]) continue;
      const double* v = x.v.data() + (kv * s.keys + j) * s.value_dim;
      for (int64_t d = 0; d < s.value_dim; ++d) {
        dp[j] = in_.add(dp[j], Real(dout[d]) * Real(v[d]));
        apart[j] += std::fabs(Real(dout[d]) * Real(v[d]));
      }
      p[j] = normal(row.weight[j]);
      dp[j] = keep(j, dp[j]), apart[j] = keep(j, apart[j]);
      delta = in_.add(delta, p[j] * dp[j]), delta_apart += p[j] * apart[j];
    }
    const bool has_sink = c.sinks && x.sinks[h] != -INFINITY;
    if (const Real sink = has_sink ? normal(row.sink) : 0; sink != 0) {
      const Real change = sink * (dlse - delta);
      dsinks.x[h] = in_.add(dsinks.x[h], change);
      dsinks.measure(h, sink * std::max(std::fabs(delta), std::fabs(dlse)),
                     sink * std::max(delta_apart, std::fabs(dlse)));
    }

    for (int64_t j = 0; j < s.keys; ++j) {
      if (!row.seen[j]) continue;
      const double* k = x.k.data() + (kv * s.keys + j) * s.dim;
      const Real ds = in_.round_kept(logit_gradient(p[j], dp[j], delta - dlse));
      Real slope = Real(c.used_scale());
      if (c.softcap != 0) slope /= std::pow(std::cosh(row.raw[j] / Real(c.softcap)), 2);
      const Real draw = ds * slope, dropped = keep(j, p[j]);
      const int64_t key = kv * s.keys + j;
      for (int64_t d = 0; d < s.dim; ++d) {
        Real &of_q = dq.x[at * s.dim + d], &of_k = dk.x[key * s.dim + d];
        of_q = in_.add(of_q, draw * Real(k[d])), of_k = in_.add(of_k, draw * Real(q[d]));
      }
      for (int64_t d = 0; d < s.value_dim; ++d) {
        Real& of_v = dv.x[key * s.value_dim + d];
        of_v = in_.add(of_v, dropped * Real(dout[d]));
      }
      const Real size = std::fabs(slope), most_k = most(k, s.dim);
      const Real term = p[j] * std::max({std::fabs(dp[j]), std::fabs(delta), std::fabs(dlse)});
      const Real parts = p[j] * std::max({apart[j], delta_apart, std::fabs(dlse)});
      dq.measure(at, term * size * most_k, parts * size * most_k);
      dk.measure(key, term * size * most_q, parts * size * most_q);
      dv.measure(key, dropped * most_dout, dropped * most_dout);
      if (!c.additive()) continue;
      const int64_t element = x.mask_index(b, h, i, j);
      dbias.x[element] = in_.add(dbias.x[element], ds);
      dbias.measure(element, term, parts);
    }
  }
};

// The rule: as for outputs, with a floor of a rounding of the result, and of four of what cancels
// within its terms. float64 is judged by its floor alone. Out: of the result.
template <class T, class Out, class Real>
void judge_gradient(const std::string& what, const std::vector<double>& got,
                    const Sums<Real>& exact, const Sums<Real>& plain, double logit) {
  constexpr bool alone = std::is_same_v<T, double>;
  const double tight =
      alone ? 1e-12 * std::max(1.0, logit / 1e3) : 4 * device::eps<accumulator_t<T>>();
  auto err = [&](Real y, size_t i) { return double(std::fabs(y - exact.x[i])); };
  double plain_max = 0, plain_sum = 0, error_sum = 0, floor_sum = 0, over = -INFINITY, worst = 0;
  size_t wrong_specials = 0, wrong_zeros = 0, n = 0;
  for (size_t i = 0; i < exact.x.size(); ++i)
    if (!alone && std::isfinite(exact.x[i]) && std::isfinite(plain.x[i]))
      plain_max = std::max(plain_max, err(plain.x[i], i)), plain_sum += err(plain.x[i], i);
  for (size_t i = 0; i < exact.x.size(); ++i) {
    const size_t group = i / exact.columns;
    const double right = double(exact.x[i]);
    wrong_specials += !same_special(got[i], right);
    wrong_zeros += right == 0 && exact.parts[group] == 0 && got[i] != 0;
    if (!std::isfinite(right) || !std::isfinite(got[i])) continue;
    const double size = std::max(exact.term[group], std::fabs(right));
    const double floor = device::ulp<Out>(size) + tight * std::max(exact.parts[group], size);
    const double error = err(got[i], i);
    if (error - 2 * plain_max - floor > over) over = error - 2 * plain_max - floor, worst = error;
    error_sum += error, floor_sum += floor, ++n;
  }
  char text[400];
  std::snprintf(
      text, sizeof text,
      ": worst error %.3g, too much by %.3g; mean %.3g; plain %.3g, mean %.3g; %zu NaN or "
      "infinities in the wrong places; %zu numbers where there are no terms",
      worst, over, n ? error_sum / n : 0, plain_max, n ? plain_sum / n : 0, wrong_specials,
      wrong_zeros);
  const bool mean = alone || n < 32 || error_sum <= 1.25 * plain_sum + floor_sum / 4;
  check::report(!wrong_specials && !wrong_zeros && over <= 0 && mean, __FILE__, __LINE__,
                what + text);
}

}  // namespace attention_case
