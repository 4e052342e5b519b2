// Every check of a problem, in the order in which a person would find the mistakes: ranks, dtypes,
// shapes, then values, then the memory to be written.
#include "problem.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "axes.hpp"
#include "errors.hpp"
#include "float_mode.hpp"
#include "problem_facts.hpp"

namespace fanano {
namespace {

constexpr const char* dtypes[] = {"float64", "float32", "bfloat16", "float16", "bool"};
constexpr const char* algorithms[] = {"naive", "safe", "online", "flash"};
constexpr const char* layouts[] = {"bhsd", "bshd"};

std::string quoted(const std::string& s) { return '"' + s + '"'; }

void check_rank(const Array& a, const char* argument, int ndim, Layout layout) {
  check_extents(a, argument);
  if (a.ndim == ndim && ndim >= 2 && ndim <= 4) return;
  bool rows_first = layout == Layout::bshd;
  const char* axes = rows_first ? "(S, H, D) or (B, S, H, D)" : "(H, S, D) or (B, H, S, D)";
  if (a.ndim < 2 || a.ndim > 4) refuse("rank", argument, axes, shape_text(a));
  refuse("same_rank", argument, ndim, shape_text(a));
}

void check_dtype(const Array& a, const char* argument, Dtype dtype) {
  if (a.dtype != dtype) refuse("same_dtype", argument, "query", name(dtype), name(a.dtype));
}

[[noreturn]] void refuse_heads(const Request& r, int64_t heads, int64_t kv_heads) {
  std::string query = shape_text(r.query), key = shape_text(r.key);
  // A user whose axes are (B, S, H, D) meets the default layout first here.
  Layout other = r.layout == Layout::bhsd ? Layout::bshd : Layout::bhsd;
  int axis = axes_of(r.query.ndim, other).head;
  int64_t swapped = extent(r.key, axis);
  if (r.query.ndim == 2 || swapped == 0 || extent(r.query, axis) % swapped)
    refuse("heads", query, heads, key, kv_heads);
  refuse("swapped_heads", query, heads, key, kv_heads, axis, name(other));
}

Shape checked_shape(const Request& r) {
  Axes axes = axes_of(r.query.ndim, r.layout);
  Shape s;
  s.batch = extent(r.query, axes.batch), s.heads = extent(r.query, axes.head);
  s.queries = extent(r.query, axes.row), s.dim = extent(r.query, axes.column);
  s.kv_heads = extent(r.key, axes.head), s.keys = extent(r.key, axes.row);
  s.value_dim = extent(r.value, axes.column);

  auto equal = [&](const Array& a, const char* argument, int axis, const char* what,
                   const Array& model, const char* model_name) {
    if (extent(a, axis) != extent(model, axis))
      refuse("same_extent", argument, shape_text(a), what, model_name, shape_text(model), axis,
             name(r.layout));
  };
  equal(r.key, "key", axes.batch, "batch size", r.query, "query");
  equal(r.value, "value", axes.batch, "batch size", r.query, "query");
  equal(r.key, "key", axes.column, "head dimension", r.query, "query");
  equal(r.value, "value", axes.head, "number of heads", r.key, "key");
  equal(r.value, "value", axes.row, "number of positions", r.key, "key");
  if (s.dim < 1 || s.dim > max_dim) refuse("dim", max_dim, shape_text(r.query));
  if (s.value_dim > max_dim) refuse("value_dim", max_dim, shape_text(r.value));
  if (s.kv_heads ? s.heads % s.kv_heads : s.heads) refuse_heads(r, s.heads, s.kv_heads);
  return s;
}

Dtype checked_out_dtype(const Request& r) {
  Dtype dtype = r.query.dtype;
  if (!r.has_out_dtype) return dtype;
  if (r.out_dtype != dtype && r.out_dtype != accumulator(dtype))
    refuse("out_dtype", dtype_or_partial(dtype), name(dtype), name(r.out_dtype));
  return r.out_dtype;
}

double checked_scale(const Request& r, int64_t dim) {
  if (r.has_scale && !std::isfinite(r.scale)) refuse("scale", r.scale);
  return r.has_scale ? r.scale : in_float_mode(dim, [](double d) { return 1 / std::sqrt(d); });
}

double checked_softcap(double softcap) {
  if (!(softcap >= 0) || std::isinf(softcap)) refuse("softcap", softcap);
  return softcap;
}

Dropout checked_dropout(const Request& r) {
  const Dropout& d = r.dropout;
  if (!(d.p >= 0 && d.p <= 1)) refuse("dropout_p", d.p);
  for (int64_t x : {d.batch, d.head, d.row, d.column})
    if (x < 0 || x > UINT32_MAX) refuse("dropout_offset", x);
  if (d.p == 0) return {};
  if (!r.has_seed) refuse("no_seed", d.p);
  if (r.algorithm != Algorithm::flash) refuse("materialised_dropout", name(r.algorithm));
  return d;
}

// The mask against (B, Hq, Sq, Sk), its axes counted from the right; those of one element are
// the same for all.
Tensor checked_mask(const Array& mask, const Shape& s) {
  const Extents full{4, {s.batch, s.heads, s.queries, s.keys}};
  check_extents(mask, "attn_mask");
  int64_t strides[4] = {};
  bool fits = mask.ndim <= 4;
  for (int i = 0; fits && i < mask.ndim; ++i) {
    int axis = 4 - mask.ndim + i;
    fits = mask.shape[i] == 1 || mask.shape[i] == full.size[axis];
    if (mask.shape[i] > 1) strides[axis] = mask.strides[i];
  }
  if (!fits) refuse("broadcast", shape_text(full), shape_text(mask));
  check_memory(mask, "attn_mask");
  if (is_empty(mask)) return {};
  return {mask.data, strides[0], strides[1], strides[2], strides[3]};
}

// As one number for each head, or for each head of each sequence.
std::vector<double> expanded(const Reals& x, int64_t heads) {
  if (x.ndim == 0) return std::vector<double>(size_t(heads), *x.data);
  return {x.data, x.data + (x.ndim == 2 ? x.shape[0] : 1) * heads};
}

void check_lengths(const Integers& x, const char* argument, int64_t batch, int64_t longest,
                   const char* owner) {
  check_count(x, argument, batch);
  if (x.on_device) return;  // kernels clamp what they find there
  for (int64_t i = 0; i < x.count; ++i) {
    if (x.data[i] >= 0 && x.data[i] <= longest) continue;
    if (x.scalar) refuse("length", argument, longest, owner, x.data[i]);
    refuse("lengths", argument, longest, owner, i, x.data[i]);
  }
}

template <class E, size_t N>
E named(const std::string& text, const char* argument, const char* const (&names)[N]) {
  for (size_t i = 0; i < N; ++i)
    if (text == names[i]) return E(i);
  std::string list;
  for (size_t i = 0; i < N; ++i)
    list += (i == 0 ? "" : i + 1 < N ? ", " : " or ") + quoted(names[i]);
  refuse("name", argument, list, text);
}

}  // namespace

const char* name(Dtype d) { return dtypes[int(d)]; }
const char* name(Algorithm a) { return algorithms[int(a)]; }
const char* name(Layout l) { return layouts[int(l)]; }
Dtype accumulator(Dtype d) { return d == Dtype::float64 ? d : Dtype::float32; }
std::string dtype_or_partial(Dtype d) {
  return std::string(name(d)) + (d == accumulator(d) ? "" : " or float32");
}

Algorithm algorithm_named(const std::string& text, const char* argument) {
  return named<Algorithm>(text, argument, algorithms);
}
Layout layout_named(const std::string& text) { return named<Layout>(text, "layout", layouts); }
Dtype dtype_named(const std::string& text, const char* argument) {
  const char* names[] = {dtypes[0], dtypes[1], dtypes[2], dtypes[3]};  // bool is for masks
  return named<Dtype>(text, argument, names);
}

int64_t batch_of(const Array& query, Layout layout) {
  check_rank(query, "query", query.ndim, layout);
  return extent(query, axes_of(query.ndim, layout).batch);
}

int64_t heads_of(const Array& query, Layout layout) {
  check_rank(query, "query", query.ndim, layout);
  return extent(query, axes_of(query.ndim, layout).head);
}

void check_count(const Integers& x, const char* argument, int64_t batch) {
  if (x.given() && !x.scalar && x.count != batch) refuse("by_batch", argument, batch, x.count);
}

// Numbers for each head, which may differ by sequence where `batches` says so.
void check_reals(const Reals& x, const char* argument, int64_t batch, int64_t heads, bool batches) {
  bool right = x.ndim == 0 || (x.ndim == 1 && x.shape[0] == heads) ||
               (batches && x.ndim == 2 && x.shape[0] == batch && x.shape[1] == heads);
  if (right) return;
  Extents e{x.ndim, {x.shape[0], x.shape[1]}}, each{1, {heads}}, both{2, {batch, heads}};
  if (!batches) refuse("by_head", argument, shape_text(each), shape_text(e));
  refuse("by_head_and_batch", argument, shape_text(each), shape_text(both), shape_text(e));
}

Algorithm softmax_algorithm_named(const std::string& text) {
  const char* names[] = {algorithms[0], algorithms[1], algorithms[2]};
  return named<Algorithm>(text, "algorithm", names);
}

int softmax_axis(const Array& x, int64_t axis) {
  if (x.ndim == 0) refuse("no_axis", "x");
  if (axis < -x.ndim || axis >= x.ndim) refuse("axis", -x.ndim, x.ndim - 1, shape_text(x), axis);
  return int(axis < 0 ? axis + x.ndim : axis);
}

void check_scores(const Array& x) {
  if (x.ndim != 1) refuse("scores_axis", shape_text(x));
}

void check_merge(const Array& out_a, const Array& lse_a, const Array& out_b, const Array& lse_b) {
  auto same_extents = [](const Array& a, const Array& b, int axes) {
    bool same = true;
    for (int i = 0; same && i < axes; ++i) same = a.shape[i] == b.shape[i];
    return same;
  };
  if (out_a.ndim == 0) refuse("no_axis", "out_a");
  if (out_b.dtype != out_a.dtype)
    refuse("same_dtype", "out_b", "out_a", name(out_a.dtype), name(out_b.dtype));
  if (out_b.ndim != out_a.ndim || !same_extents(out_a, out_b, out_a.ndim))
    refuse("same_shape", "out_b", "out_a", shape_text(out_a), shape_text(out_b));
  for (auto [lse, argument] : {std::pair(&lse_a, "lse_a"), std::pair(&lse_b, "lse_b")}) {
    Array rows = {nullptr, accumulator(out_a.dtype), out_a.ndim - 1, out_a.shape, nullptr};
    if (lse->dtype != rows.dtype)
      refuse("lse_dtype", argument, name(rows.dtype), name(out_a.dtype), name(lse->dtype));
    if (lse->ndim != rows.ndim || !same_extents(*lse, rows, rows.ndim))
      refuse("lse_shape", argument, shape_text(rows), shape_text(*lse));
  }
}

Description::Description(const Request& r) : request_(r) {
  check_rank(r.query, "query", r.query.ndim, r.layout);
  check_rank(r.key, "key", r.query.ndim, r.layout);
  check_rank(r.value, "value", r.query.ndim, r.layout);
  check_dtype(r.key, "key", r.query.dtype);
  check_dtype(r.value, "value", r.query.dtype);

  Problem& p = problem_;
  const Shape& s = p.shape = checked_shape(r);
  p.dtype = r.query.dtype, p.out_dtype = checked_out_dtype(r), p.algorithm = r.algorithm;
  p.score.scale = checked_scale(r, s.dim), p.score.softcap = checked_softcap(r.softcap);
  p.window = r.window;
  p.dropout = checked_dropout(r);
  if (r.is_causal) p.window.right = 0;  // what a window allows beyond it, causality does not
  if (r.attn_mask) p.mask = checked_mask(*r.attn_mask, s), p.mask_dtype = r.attn_mask->dtype;
  if (r.alibi_slopes.data) check_reals(r.alibi_slopes, "alibi_slopes", s.batch, s.heads, true);
  if (r.sinks.data) check_reals(r.sinks, "sinks", s.batch, s.heads, false);
  check_lengths(r.q_lengths, "q_lengths", s.batch, s.queries, "query");
  check_lengths(r.kv_lengths, "kv_lengths", s.batch, s.keys, "key");
  check_count(r.q_offset, "q_offset", s.batch);

  Axes axes = axes_of(r.query.ndim, r.layout);
  p.q = tensor_of(r.query, axes), p.k = tensor_of(r.key, axes), p.v = tensor_of(r.value, axes);

  // An empty problem reads no numbers, and its batch may be any size.
  bool given = r.q_lengths.given() || r.kv_lengths.given() || r.q_offset.given();
  if (int64_t n = s.batch; given && n && s.heads && s.queries) {
    numbers_.reset(new int64_t[3 * n]);
    int64_t* next = numbers_.get();
    auto copy = [&](const Integers& x) -> const int64_t* {
      if (!x.given()) return nullptr;
      if (x.on_device) return x.data;
      for (int64_t i = 0; i < n; ++i) next[i] = x.data[x.scalar ? 0 : i];
      return (next += n) - n;
    };
    p.lengths = {copy(r.q_lengths), copy(r.kv_lengths), copy(r.q_offset)};
    p.on_device.queries = r.q_lengths.on_device, p.on_device.keys = r.kv_lengths.on_device;
    p.on_device.q_offset = r.q_offset.on_device;
  }
  if (s.batch && s.heads && s.queries) copy_reals();
  if (r.out) write_to(*r.out, r.lse);
}

Description::~Description() = default;

void Description::copy_reals() {
  auto first_bad = [](const std::vector<double>& x, auto good) {
    return std::find_if_not(x.begin(), x.end(), good) - x.begin();
  };
  const Shape& s = problem_.shape;
  const Reals &slopes = request_.alibi_slopes, &sinks = request_.sinks;
  Score& score = problem_.score;
  score.slopes = slopes.data, score.slopes_batch = slopes.ndim == 2 ? s.heads : 0;
  score.sinks = sinks.data;
  problem_.on_device.slopes = slopes.on_device, problem_.on_device.sinks = sinks.on_device;
  if (slopes.data && !slopes.on_device) {
    slopes_ = expanded(slopes, s.heads);
    auto bad = first_bad(slopes_, [](double x) { return std::isfinite(x); });
    if (bad < std::ssize(slopes_)) refuse("slope", bad, slopes_[bad]);
    score.slopes = slopes_.data();
  }
  if (sinks.data && !sinks.on_device) {
    sinks_ = expanded(sinks, s.heads);
    auto bad = first_bad(sinks_, [](double x) { return x < HUGE_VAL; });
    if (bad < std::ssize(sinks_)) refuse("sink", bad, sinks_[bad]);
    const double limit = largest_sink(problem_);
    for (double& x : sinks_)
      if (std::isfinite(x)) x = std::clamp(x, -limit, limit);
    score.sinks = sinks_.data();
  }
}

void Description::write_to(const Array& out, const Array* lse) {
  const Request& r = request_;
  auto check = [](const Array& a, const char* argument, const Extents& expected) {
    check_extents(a, argument);
    bool same = a.ndim == expected.ndim;
    for (int i = 0; same && i < a.ndim; ++i) same = a.shape[i] == expected.size[i];
    if (!same) refuse("result_shape", argument, shape_text(expected), shape_text(a));
    check_writable(a, argument);
  };
  Dtype partial = accumulator(problem_.dtype);
  bool allowed = r.has_out_dtype ? out.dtype == r.out_dtype
                                 : out.dtype == problem_.dtype || out.dtype == partial;
  if (!allowed)
    refuse("result_dtype", "out",
           r.has_out_dtype ? name(r.out_dtype) : dtype_or_partial(problem_.dtype), name(out.dtype));
  if (lse && lse->dtype != partial) refuse("result_dtype", "lse", name(partial), name(lse->dtype));
  const std::pair<const Array*, const char*> inputs[] = {
      {&r.query, "query"}, {&r.key, "key"}, {&r.value, "value"}};
  for (auto [input, argument] : inputs) check_memory(*input, argument);
  check(out, "out", out_shape());
  if (lse) check(*lse, "lse", lse_shape()), check_apart(out, "out", *lse, "lse");
  for (auto [input, argument] : inputs) {
    check_apart(out, "out", *input, argument);
    if (lse) check_apart(*lse, "lse", *input, argument);
  }
  if (r.attn_mask) {
    check_apart(out, "out", *r.attn_mask, "attn_mask");
    if (lse) check_apart(*lse, "lse", *r.attn_mask, "attn_mask");
  }
  problem_.out_dtype = out.dtype;
  problem_.out = tensor_of(out, axes_of(out.ndim, r.layout));
  problem_.lse = lse ? tensor_of(*lse, lse_axes(lse->ndim)) : Tensor{};
}

Extents Description::out_shape() const {
  const Array& q = request_.query;
  Extents e{q.ndim, {}};
  for (int i = 0; i + 1 < q.ndim; ++i) e.size[i] = q.shape[i];
  e.size[q.ndim - 1] = problem_.shape.value_dim;
  return e;
}

Extents Description::lse_shape() const {
  const Shape& s = problem_.shape;
  switch (request_.query.ndim) {
    case 2: return {1, {s.queries}};
    case 3: return {2, {s.heads, s.queries}};
    default: return {3, {s.batch, s.heads, s.queries}};
  }
}

}  // namespace fanano
