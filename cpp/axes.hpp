// Which axis of the caller's arrays is which, and the way from an Array to a kernel's Tensor.
#pragma once

#include "array.hpp"

namespace fanano {

// -1: the array has no such axis, and its extent is 1.
struct Axes { int batch, head, row, column; };

// Of query, key, value and what has their form.
inline Axes axes_of(int ndim, Layout layout) {
  bool rows_first = layout == Layout::bshd;
  if (ndim == 2) return {-1, -1, 0, 1};
  if (ndim == 3) return rows_first ? Axes{-1, 1, 0, 2} : Axes{-1, 0, 1, 2};
  return rows_first ? Axes{0, 2, 1, 3} : Axes{0, 1, 2, 3};
}

inline Axes lse_axes(int ndim) { return {ndim - 3, ndim - 2, ndim - 1, -1}; }  // below 0: none

// Axes are counted from the right, whatever the layout.
inline Axes mask_axes(int ndim) { return {ndim - 4, ndim - 3, ndim - 2, ndim - 1}; }

inline int64_t extent(const Array& a, int axis) { return axis < 0 ? 1 : a.shape[axis]; }

// Strides along axes of one element are never taken, so what they say does not matter.
inline Tensor tensor_of(const Array& a, Axes axes) {
  if (is_empty(a)) return {};
  auto stride = [&](int axis, int64_t otherwise) {
    return axis < 0 || a.shape[axis] < 2 ? otherwise : a.strides[axis];
  };
  return {a.data, stride(axes.batch, 0), stride(axes.head, 0), stride(axes.row, 0),
          stride(axes.column, axes.column < 0 ? 0 : 1)};
}

}  // namespace fanano
