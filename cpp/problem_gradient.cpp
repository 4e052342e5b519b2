// The checks of what backward reads and writes beside a problem of attention.
#include <utility>

#include "axes.hpp"
#include "errors.hpp"
#include "problem.hpp"

namespace fanano {
namespace {

void check_shape(const Array& a, const char* argument, const Extents& expected) {
  check_extents(a, argument);
  bool same = a.ndim == expected.ndim;
  for (int i = 0; same && i < a.ndim; ++i) same = a.shape[i] == expected.size[i];
  if (!same) refuse("result_shape", argument, shape_text(expected), shape_text(a));
  check_memory(a, argument);
}

Extents extents_of(const Array& a) {
  Extents e{a.ndim, {}};
  for (int i = 0; i < a.ndim; ++i) e.size[i] = a.shape[i];
  return e;
}

}  // namespace

void Description::differentiate(bool grad_mask) {
  if (problem_.algorithm != Algorithm::flash) refuse("no_backward", name(problem_.algorithm));
  const Array* mask = request_.attn_mask;
  if (grad_mask && (!mask || mask->dtype == Dtype::boolean))
    refuse("grad_mask", mask ? "boolean" : "None");
  Gradient& g = problem_.gradient;
  g.bias = grad_mask, g.sinks = request_.sinks.data != nullptr;
  if (!grad_mask) return;
  Axes axes = mask_axes(mask->ndim);
  auto own = [&](int axis) { return extent(*mask, axis) != 1; };
  g.bias_batch = own(axes.batch), g.bias_head = own(axes.head);
  g.bias_row = own(axes.row), g.bias_column = own(axes.column);
}

void Description::read(const Upstream& u) {
  differentiate(u.grad_mask);
  Dtype dtype = problem_.dtype, partial = accumulator(dtype);
  check_shape(u.out, "out", out_shape());
  if (u.out.dtype != dtype && u.out.dtype != partial)
    refuse("result_dtype", "out", dtype_or_partial(dtype), name(u.out.dtype));
  check_shape(u.dout, "dout", out_shape());
  if (u.dout.dtype != u.out.dtype)
    refuse("same_dtype", "dout", "out", name(u.out.dtype), name(u.dout.dtype));
  for (auto [array, argument] : {std::pair(&u.lse, "lse"), std::pair(u.dlse, "dlse")}) {
    if (!array) continue;
    check_shape(*array, argument, lse_shape());
    if (array->dtype != partial)
      refuse("result_dtype", argument, name(partial), name(array->dtype));
  }

  Axes axes = axes_of(u.out.ndim, request_.layout), of_lse = lse_axes(u.lse.ndim);
  problem_.out_dtype = u.out.dtype;
  problem_.out = tensor_of(u.out, axes), problem_.lse = tensor_of(u.lse, of_lse);
  problem_.gradient.dout = tensor_of(u.dout, axes);
  if (u.dlse) problem_.gradient.dlse = tensor_of(*u.dlse, of_lse);
  upstream_ = u;
}

void Description::write_to(const GradientArrays& to) {
  const Request& r = request_;
  const Extents heads{1, {problem_.shape.heads}};
  const std::pair<const Array*, const char*> inputs[] = {
      {&r.query, "query"},        {&r.key, "key"},           {&r.value, "value"},
      {r.attn_mask, "attn_mask"}, {&upstream_.dout, "dout"}, {&upstream_.out, "out"},
      {&upstream_.lse, "lse"},    {upstream_.dlse, "dlse"}};
  const std::pair<const Array*, const char*> results[] = {
      {to.dq, "dq"}, {to.dk, "dk"}, {to.dv, "dv"}, {to.dbias, "dbias"}, {to.dsinks, "dsinks"}};
  const Extents shapes[] = {extents_of(r.query), extents_of(r.key), extents_of(r.value),
                            r.attn_mask ? extents_of(*r.attn_mask) : Extents{}, heads};
  for (int i = 0; i < 5; ++i) {
    auto [result, argument] = results[i];
    if (!result) continue;
    check_shape(*result, argument, shapes[i]);
    check_writable(*result, argument);
    for (auto [input, other] : inputs)
      if (input) check_apart(*result, argument, *input, other);
    for (int j = 0; j < i; ++j)
      if (results[j].first) check_apart(*result, argument, *results[j].first, results[j].second);
  }

  Gradient& g = problem_.gradient;
  Axes axes = axes_of(r.query.ndim, r.layout);
  g.dq = tensor_of(*to.dq, axes), g.dk = tensor_of(*to.dk, axes), g.dv = tensor_of(*to.dv, axes);
  g.bias = to.dbias, g.sinks = to.dsinks;
  if (to.dbias) g.dbias = tensor_of(*to.dbias, mask_axes(to.dbias->ndim));
  if (to.dsinks) g.dsinks = tensor_of(*to.dsinks, {-1, 0, -1, -1});
}

}  // namespace fanano
