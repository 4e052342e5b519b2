// One problem of attention for the tests of kernels: what is asked, and its numbers.
// attention_oracle.hpp has the answer.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "math/mask.hpp"
#include "problem.hpp"

namespace attention_case {

using namespace fanano;

// far_below: e^score is 0 everywhere. hidden_nan: NaN and infinities in keys and values that no row
// sees. partly_nan: the same in the values of every fifth key, which some rows may see. nan_scores:
// NaN or infinities in every seventh key, and NaN in the second query. light_infinity: at scale 1
// the first key, the one in the middle and the last weigh e^-300, and the sixth one nothing; each
// has an infinite value, in a column of its own. risen_infinity: the same, and a key three quarters
// down weighs e^300. endless: products, and sums of keys, beyond float32, for scale 0.
enum Data {
  normal,
  growing,
  huge,
  far_below,
  hidden_nan,
  partly_nan,
  nan_scores,
  light_infinity,
  risen_infinity,
  endless
};

// How q, k, v and the results lie in memory: gaps between rows and within them; the last number
// first; or (of q, k and v) one sequence that stands for all.
enum Strides { dense, gaps, reversed, repeated };

struct Case {
  Shape shape;
  Window window{};
  double scale = NAN;  // NaN: 1/sqrt(dim)
  Data data = normal;
  std::vector<int64_t> queries{}, keys{}, offsets{};  // of each sequence; empty: full, lower right
  double softcap = 0;
  bool slopes = false, sinks = false;
  // By an array of mask_dtype, which has one number for all along an axis that is not in `extends`.
  bool masked = false;
  Dtype mask_dtype = Dtype::boolean;
  bool extends[4] = {true, true, true, true};
  Dropout dropout{};
  bool device_seed = false;  // which lies there; another one in the problem would be wrong
  Strides strides = dense;
  double value_size = 1, sink_size = 1;  // what v and the sinks are multiplied by

  double used_scale() const { return std::isnan(scale) ? 1 / std::sqrt(double(shape.dim)) : scale; }
  Mask mask(int64_t b, int64_t& used_queries) const {
    auto list = [](const std::vector<int64_t>& v) { return v.empty() ? nullptr : v.data(); };
    Sequence s = sequence(b, shape.queries, shape.keys, list(queries), list(keys), list(offsets));
    used_queries = s.queries;
    return make_mask(s, window.left, window.right);
  }
  bool additive() const { return masked && mask_dtype != Dtype::boolean; }

  std::string text() const {
    char t[300];
    std::snprintf(t, sizeof t,
                  "%lld sequences, %lld of %lld heads, %lld queries, %lld keys, dim %lld, %lld, "
                  "window %lld, %lld, scale %g, softcap %g, slopes %d, sinks %d, mask %d of dtype "
                  "%d, dropout %g, strides %d, data %d",
                  ll(shape.batch), ll(shape.heads), ll(shape.kv_heads), ll(shape.queries),
                  ll(shape.keys), ll(shape.dim), ll(shape.value_dim), ll(window.left),
                  ll(window.right), scale, softcap, slopes, sinks, masked, int(mask_dtype),
                  dropout.p, strides, data);
    return t;
  }

 private:
  static long long ll(int64_t x) { return x; }
};

// (batch, heads, rows, columns), contiguous; slopes (batch, heads); the mask of its own extents.
struct Numbers {
  std::vector<double> q, k, v, slopes, sinks, mask;  // boolean masks: 0 and 1
  Shape shape;
  Shape mask_shape;  // batch, heads, queries, keys

  explicit Numbers(const Case& c) : shape(c.shape), mask_shape(c.shape) {
    const Shape& s = shape;
    std::mt19937 random(static_cast<unsigned>(s.queries * 131 + s.keys * 7 + s.dim));
    std::normal_distribution<double> draw;
    auto fill = [&](std::vector<double>& x, int64_t n) {
      for (int64_t i = 0; i < n; ++i) x.push_back(draw(random));
    };
    fill(q, s.batch * s.heads * s.queries * s.dim);
    fill(k, s.batch * s.kv_heads * s.keys * s.dim);
    fill(v, s.batch * s.kv_heads * s.keys * s.value_dim);
    for (int64_t h = 0; c.slopes && h < s.batch * s.heads; ++h)
      slopes.push_back(std::exp2(-double(h) - 1));
    if (c.sinks) fill(sinks, s.heads);
    if (sinks.size() > 2) sinks[2] = -INFINITY;  // none
    if (c.masked) fill_mask(c, random, draw);
    for (double& x : v) x *= c.value_size;
    for (double& x : sinks) x *= c.sink_size;
    shape_data(c);
    if (c.strides == repeated)
      for (std::vector<double>* x : {&q, &k, &v})
        for (size_t i = 0, n = x->size() / std::max<size_t>(s.batch, 1); i < x->size(); ++i)
          (*x)[i] = (*x)[i % n];
  }

  // Where the mask has what belongs to a pair.
  int64_t mask_index(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const Shape& m = mask_shape;
    auto in = [](int64_t x, int64_t n) { return n == 1 ? 0 : x; };
    return ((in(b, m.batch) * m.heads + in(h, m.heads)) * m.queries + in(i, m.queries)) * m.keys +
           in(j, m.keys);
  }
  double mask_at(int64_t b, int64_t h, int64_t i, int64_t j) const {
    return mask[mask_index(b, h, i, j)];
  }

  // Whether query row i of head h of sequence b, which is one of those used, sees key j.
  bool sees(const Case& c, const Mask& position, int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (!position.visible(i, j)) return false;
    return !c.masked ||
           (c.additive() ? mask_at(b, h, i, j) != -INFINITY : mask_at(b, h, i, j) != 0);
  }

 private:
  // Seven of ten pairs are seen; of additive masks some elements are the lowest finite number, and
  // where each row has its own, all of the first row.
  void fill_mask(const Case& c, std::mt19937& random, std::normal_distribution<double>& draw) {
    Shape& m = mask_shape;
    if (!c.extends[0]) m.batch = 1;
    if (!c.extends[1]) m.heads = 1;
    if (!c.extends[2]) m.queries = 1;
    if (!c.extends[3]) m.keys = 1;
    std::uniform_real_distribution<double> chance;
    const double lowest = c.mask_dtype == Dtype::float64   ? -1.7976931348623157e308
                          : c.mask_dtype == Dtype::float16 ? -65504
                                                           : -3.3895313892515355e38;
    for (int64_t i = 0; i < m.batch * m.heads * m.queries * m.keys; ++i) {
      double x = chance(random);
      if (!c.additive())
        mask.push_back(x < 0.7);
      else
        mask.push_back(x < 0.7 ? 2 * draw(random) : x < 0.75 ? lowest : -INFINITY);
      if (c.additive() && m.queries > 1 && i / m.keys % m.queries == 0) mask.back() = lowest;
    }
  }

  void shape_data(const Case& c) {
    const Shape& s = shape;
    if (c.data == huge)
      for (double& x : q) x *= 300;
    if (c.data == growing) {  // the first column raises the scores along the keys
      for (size_t i = 0; i < k.size(); ++i)
        if (i % s.dim == 0) k[i] = 0.25 * double(int64_t(i) / s.dim % s.keys);
      for (size_t i = 0; i < q.size(); i += s.dim) q[i] = std::fabs(q[i]) + 1;
    }
    if (c.data == far_below) {
      for (size_t i = 0; i < k.size(); i += s.dim) k[i] = -60;
      for (size_t i = 0; i < q.size(); i += s.dim) q[i] = 30;
    }
    if (c.data == hidden_nan) hide_nan(c);
    if (c.data == light_infinity || c.data == risen_infinity) {
      for (size_t i = 0; i < q.size(); i += s.dim) q[i] = 20;
      for (size_t i = 0; i < k.size(); i += s.dim) k[i] = 0;
      const int64_t keys[] = {0, s.keys / 2, s.keys - 1, 5};
      for (int64_t row = 0; row < s.batch * s.kv_heads * s.keys; row += s.keys) {
        if (c.data == risen_infinity) k[(row + s.keys * 3 / 4) * s.dim] = 15;
        for (int64_t column = 0; column < 4; ++column) {
          k[(row + keys[column]) * s.dim] = column < 3 ? -15 : -INFINITY;
          v[(row + keys[column]) * s.value_dim + column] = column % 2 ? -INFINITY : INFINITY;
        }
      }
    }
    if (c.data == endless)
      for (std::vector<double>* x : {&q, &k})
        for (double& y : *x) y = std::copysign(x == &q ? 1e25 : 3e38, y);
    if (c.data == partly_nan)
      for (size_t i = 0; i < v.size(); ++i)
        if (int64_t key = int64_t(i) / s.value_dim % s.keys; key % 5 == 2 && (i + key) % 3)
          v[i] = key % 2 ? NAN : key % 4 ? -INFINITY : INFINITY;
    if (c.data == nan_scores) {
      for (size_t i = 0; i < k.size(); ++i)
        if (int64_t key = int64_t(i) / s.dim % s.keys; key % 7 == 3)
          k[i] = key % 2 ? NAN : INFINITY;
      for (size_t i = 0; i < q.size(); ++i)
        if (int64_t(i) / s.dim % s.queries == 1) q[i] = NAN;
    }
  }

  void hide_nan(const Case& c) {
    const Shape& s = shape;
    const int64_t group = s.heads / s.kv_heads;
    for (int64_t b = 0; b < s.batch; ++b) {
      int64_t used;
      Mask position = c.mask(b, used);
      for (int64_t head = 0; head < s.kv_heads; ++head)
        for (int64_t j = 0; j < s.keys; ++j) {
          bool seen = false;
          for (int64_t h = head * group; h < (head + 1) * group; ++h)
            for (int64_t i = 0; i < used; ++i) seen |= sees(c, position, b, h, i, j);
          if (seen) continue;
          int64_t row = (b * s.kv_heads + head) * s.keys + j;
          for (int64_t d = 0; d < s.dim; ++d) k[row * s.dim + d] = j % 2 ? NAN : INFINITY;
          for (int64_t d = 0; d < s.value_dim; ++d) v[row * s.value_dim + d] = NAN;
        }
    }
  }
};

}  // namespace attention_case
