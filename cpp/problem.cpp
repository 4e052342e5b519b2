// Every check of a problem, in the order in which a person would find the mistakes: ranks, dtypes,
// shapes, then values, then the memory to be written.
#include "problem.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <utility>

#include "array.hpp"
#include "float_mode.hpp"

namespace fanano {
namespace {

constexpr int64_t max_dim = 576;

constexpr const char* dtypes[] = {"float64", "float32", "bfloat16", "float16", "bool"};
constexpr const char* algorithms[] = {"naive", "safe", "online", "flash"};
constexpr const char* layouts[] = {"bhsd", "bshd"};

std::string quoted(const std::string& s) { return '"' + s + '"'; }
std::string shaped(const char* argument, const Array& a) {
  return std::string(argument) + " of shape " + shape_text(a);
}

// Which axis of an array is which; -1: it has none, and its extent is 1.
struct Axes { int batch, head, row, column; };

Axes axes_of(int ndim, Layout layout) {
  bool rows_first = layout == Layout::bshd;
  if (ndim == 2) return {-1, -1, 0, 1};
  if (ndim == 3) return rows_first ? Axes{-1, 1, 0, 2} : Axes{-1, 0, 1, 2};
  return rows_first ? Axes{0, 2, 1, 3} : Axes{0, 1, 2, 3};
}

Axes lse_axes(int ndim) { return {ndim - 3, ndim - 2, ndim - 1, -1}; }  // below 0: none

int64_t extent(const Array& a, int axis) { return axis < 0 ? 1 : a.shape[axis]; }

// Strides along axes of one element are never taken, so what they say does not matter.
Tensor tensor_of(const Array& a, Axes axes) {
  if (is_empty(a)) return {};
  auto stride = [&](int axis, int64_t otherwise) {
    return axis < 0 || a.shape[axis] < 2 ? otherwise : a.strides[axis];
  };
  return {a.data, stride(axes.batch, 0), stride(axes.head, 0), stride(axes.row, 0),
          stride(axes.column, axes.column < 0 ? 0 : 1)};
}

void check_rank(const Array& a, const char* argument, int ndim, Layout layout) {
  check_extents(a, argument);
  if (a.ndim == ndim && ndim >= 2 && ndim <= 4) return;
  bool rows_first = layout == Layout::bshd;
  if (a.ndim < 2 || a.ndim > 4)
    throw ValueError(std::string(argument) + " must have 2, 3 or 4 axes: (S, D), " +
                     (rows_first ? "(S, H, D) or (B, S, H, D)" : "(H, S, D) or (B, H, S, D)") +
                     "; it has shape " + shape_text(a));
  throw ValueError(std::string(argument) + " must have as many axes as query, " +
                   std::to_string(ndim) + "; it has shape " + shape_text(a));
}

void check_dtype(const Array& a, const char* argument, Dtype dtype) {
  if (a.dtype != dtype)
    throw TypeError(std::string(argument) + " must have the dtype of query, " + name(dtype) +
                    "; it is " + name(a.dtype));
}

// A user whose axes are (B, S, H, D) meets the default layout first here.
std::string swapped_hint(const Request& r) {
  Layout other = r.layout == Layout::bhsd ? Layout::bshd : Layout::bhsd;
  Axes axes = axes_of(r.query.ndim, other);
  int64_t heads = extent(r.query, axes.head), kv_heads = extent(r.key, axes.head);
  if (r.query.ndim == 2 || kv_heads == 0 || heads % kv_heads) return "";
  return std::string("; if axis ") + std::to_string(axes.head) +
         " holds the heads, pass layout=" + quoted(name(other));
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
      throw ValueError(shaped(argument, a) + " must have the same " + what + " as " +
                       shaped(model_name, model) + " (axis " + std::to_string(axis) +
                       " in layout " + quoted(name(r.layout)) + ")");
  };
  equal(r.key, "key", axes.batch, "batch size", r.query, "query");
  equal(r.value, "value", axes.batch, "batch size", r.query, "query");
  equal(r.key, "key", axes.column, "head dimension", r.query, "query");
  equal(r.value, "value", axes.head, "number of heads", r.key, "key");
  equal(r.value, "value", axes.row, "number of positions", r.key, "key");
  if (s.dim < 1 || s.dim > max_dim)
    throw ValueError("the head dimension, query's last axis, must be 1 to 576; query has shape " +
                     shape_text(r.query));
  if (s.value_dim > max_dim)
    throw ValueError("value's last axis must be 0 to 576; it has shape " + shape_text(r.value));
  if (s.kv_heads ? s.heads % s.kv_heads : s.heads)
    throw ValueError("the number of query heads must be a multiple of the number of key heads: " +
                     shaped("query", r.query) + " has " + std::to_string(s.heads) + ", " +
                     shaped("key", r.key) + " has " + std::to_string(s.kv_heads) + swapped_hint(r));
  return s;
}

Dtype checked_out_dtype(const Request& r) {
  if (!r.has_out_dtype) return r.query.dtype;
  if (r.out_dtype != r.query.dtype && r.out_dtype != accumulator(r.query.dtype))
    throw ValueError(std::string("out_dtype must be ") + name(r.query.dtype) +
                     (r.query.dtype == accumulator(r.query.dtype) ? "" : " or float32") + " for " +
                     name(r.query.dtype) + " inputs, got " + name(r.out_dtype));
  return r.out_dtype;
}

double checked_scale(const Request& r, int64_t dim) {
  if (r.has_scale && !std::isfinite(r.scale))
    throw ValueError("scale must be a finite number, got " + std::to_string(r.scale));
  return r.has_scale ? r.scale : in_float_mode(dim, [](double d) { return 1 / std::sqrt(d); });
}

double checked_softcap(double softcap) {
  if (!(softcap >= 0) || std::isinf(softcap))
    throw ValueError("softcap must be a positive finite number, or 0 or None for none, got " +
                     std::to_string(softcap));
  return softcap;
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
  if (!fits)
    throw ValueError("attn_mask must broadcast against (B, Hq, Sq, Sk), " + shape_text(full) +
                     "; it has shape " + shape_text(mask));
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
  for (int64_t i = 0; i < x.count; ++i)
    if (x.data[i] < 0 || x.data[i] > longest)
      throw ValueError(std::string(argument) + " must be 0 to " + std::to_string(longest) +
                       ", the positions that " + owner + " has; " +
                       (x.scalar ? "it is " : "number " + std::to_string(i) + " is ") +
                       std::to_string(x.data[i]));
}

template <class E, size_t N>
E named(const std::string& text, const char* argument, const char* const (&names)[N]) {
  std::string list;
  for (size_t i = 0; i < N; ++i) {
    if (text == names[i]) return E(i);
    list += (i == 0 ? "" : i + 1 < N ? ", " : " or ") + quoted(names[i]);
  }
  throw ValueError(std::string(argument) + " must be " + list + ", got " + quoted(text));
}

}  // namespace

const char* name(Dtype d) { return dtypes[int(d)]; }
const char* name(Algorithm a) { return algorithms[int(a)]; }
const char* name(Layout l) { return layouts[int(l)]; }
Dtype accumulator(Dtype d) { return d == Dtype::float64 ? d : Dtype::float32; }

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
  if (x.given() && !x.scalar && x.count != batch)
    throw ValueError(std::string(argument) +
                     " must have one number for each sequence of the batch, " +
                     std::to_string(batch) + "; it has " + std::to_string(x.count));
}

// Numbers for each head, which may differ by sequence where `batches` says so.
void check_reals(const Reals& x, const char* argument, int64_t batch, int64_t heads, bool batches) {
  bool right = x.ndim == 0 || (x.ndim == 1 && x.shape[0] == heads) ||
               (batches && x.ndim == 2 && x.shape[0] == batch && x.shape[1] == heads);
  if (right) return;
  Extents e{x.ndim, {x.shape[0], x.shape[1]}}, each{1, {heads}}, both{2, {batch, heads}};
  throw ValueError(std::string(argument) + " must have shape (Hq,), " + shape_text(each) +
                   (batches ? ", or (B, Hq), " + shape_text(both) : "") + "; it has shape " +
                   shape_text(e));
}

Algorithm softmax_algorithm_named(const std::string& text) {
  const char* names[] = {algorithms[0], algorithms[1], algorithms[2]};
  return named<Algorithm>(text, "algorithm", names);
}

int softmax_axis(const Array& x, int64_t axis) {
  if (x.ndim == 0) throw ValueError("x must have at least one axis; it is a single number");
  if (axis < -x.ndim || axis >= x.ndim)
    throw ValueError("axis must be " + std::to_string(-x.ndim) + " to " +
                     std::to_string(x.ndim - 1) + " for x of shape " + shape_text(x) + ", got " +
                     std::to_string(axis));
  return int(axis < 0 ? axis + x.ndim : axis);
}

void check_scores(const Array& x) {
  if (x.ndim != 1) throw ValueError("scores must have one axis; they have shape " + shape_text(x));
}

void check_merge(const Array& out_a, const Array& lse_a, const Array& out_b, const Array& lse_b) {
  auto same_extents = [](const Array& a, const Array& b, int axes) {
    bool same = true;
    for (int i = 0; same && i < axes; ++i) same = a.shape[i] == b.shape[i];
    return same;
  };
  if (out_a.ndim == 0) throw ValueError("out_a must have at least one axis; it is a single number");
  if (out_b.dtype != out_a.dtype)
    throw TypeError(std::string("out_b must have the dtype of out_a, ") + name(out_a.dtype) +
                    "; it is " + name(out_b.dtype));
  if (out_b.ndim != out_a.ndim || !same_extents(out_a, out_b, out_a.ndim))
    throw ValueError("out_b must have the shape of out_a, " + shape_text(out_a) +
                     "; it has shape " + shape_text(out_b));
  for (auto [lse, argument] : {std::pair(&lse_a, "lse_a"), std::pair(&lse_b, "lse_b")}) {
    if (lse->dtype != accumulator(out_a.dtype))
      throw TypeError(std::string(argument) + " must be " + name(accumulator(out_a.dtype)) +
                      " for " + name(out_a.dtype) + " results; it is " + name(lse->dtype));
    if (lse->ndim != out_a.ndim - 1 || !same_extents(*lse, out_a, lse->ndim))
      throw ValueError(std::string(argument) +
                       " must have the shape of out_a without its last axis, " +
                       shape_text({nullptr, {}, out_a.ndim - 1, out_a.shape, nullptr}) +
                       "; it has shape " + shape_text(*lse) +
                       ". Results of layout=\"bshd\" must have their heads moved before the rows");
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
      for (int64_t i = 0; i < n; ++i) next[i] = x.data[x.scalar ? 0 : i];
      return (next += n) - n;
    };
    p.lengths = {copy(r.q_lengths), copy(r.kv_lengths), copy(r.q_offset)};
  }
  if (s.batch && s.heads && s.queries) copy_reals();
  if (r.out) write_to(*r.out, r.lse);
}

Description::~Description() = default;

// Numbers that the accumulator, or what they are multiplied by, would make infinite stand for the
// largest that it does not. No weight depends on it: exponents are 0 or minus infinity long before.
void Description::copy_reals() {
  auto first_bad = [](const std::vector<double>& x, auto good) {
    return std::find_if_not(x.begin(), x.end(), good) - x.begin();
  };
  const Shape& s = problem_.shape;
  Score& score = problem_.score;
  const double limit = (accumulator(problem_.dtype) == Dtype::float64 ? DBL_MAX : FLT_MAX) / 8;
  if (const Reals& slopes = request_.alibi_slopes; slopes.data) {
    slopes_ = expanded(slopes, s.heads);
    auto bad = first_bad(slopes_, [](double x) { return std::isfinite(x); });
    if (bad < std::ssize(slopes_))
      throw ValueError("alibi_slopes must be finite numbers; number " + std::to_string(bad) +
                       " is " + std::to_string(slopes_[bad]));
    double farthest = double(s.queries) + double(s.keys);
    if (const int64_t* offset = problem_.lengths.q_offset)
      for (int64_t i = 0; i < s.batch; ++i)
        farthest = std::max(farthest, std::abs(double(offset[i])) + double(s.queries + s.keys));
    const double steepest = limit / std::max(farthest, 1.0);
    for (double& x : slopes_) x = std::clamp(x, -steepest, steepest);
    score.slopes = slopes_.data(), score.slopes_batch = slopes.ndim == 2 ? s.heads : 0;
  }
  if (request_.sinks.data) {
    sinks_ = expanded(request_.sinks, s.heads);
    auto bad = first_bad(sinks_, [](double x) { return x < HUGE_VAL; });
    if (bad < std::ssize(sinks_))
      throw ValueError("sinks must be finite numbers, or -inf for none; number " +
                       std::to_string(bad) + " is " + std::to_string(sinks_[bad]));
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
    if (!same)
      throw ValueError(std::string(argument) + " must have shape " + shape_text(expected) +
                       "; it has shape " + shape_text(a));
    check_writable(a, argument);
  };
  Dtype partial = accumulator(problem_.dtype);
  bool allowed = r.has_out_dtype ? out.dtype == r.out_dtype
                                 : out.dtype == problem_.dtype || out.dtype == partial;
  if (!allowed)
    throw TypeError(std::string("out must have dtype ") + name(problem_.out_dtype) +
                    (r.has_out_dtype || partial == problem_.dtype ? "" : " or float32") +
                    "; it is " + name(out.dtype));
  if (lse && lse->dtype != partial)
    throw TypeError(std::string("lse must have dtype ") + name(partial) + "; it is " +
                    name(lse->dtype));
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
