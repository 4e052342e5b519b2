#include "array.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "errors.hpp"

namespace fanano {
namespace {

std::string tuple_text(int ndim, const int64_t* numbers) {
  std::string text = "(";
  for (int i = 0; i < ndim; ++i) text += (i ? ", " : "") + std::to_string(numbers[i]);
  return text + (ndim == 1 ? ",)" : ")");
}

// How far an axis steps, in bytes and whichever way; 0: nowhere, it has one element.
uint64_t step_of(const Array& a, int axis) {
  int64_t step = a.shape[axis] < 2 ? 0 : a.strides[axis] * size_of(a.dtype);
  return step < 0 ? 0 - uint64_t(step) : uint64_t(step);
}

// The bytes that the axes of steps below a bound reach from the first element.
Bytes run_of(const Array& a, uint64_t bound) {
  if (is_empty(a)) return {};
  int64_t below = 0, above = size_of(a.dtype);
  for (int i = 0; i < a.ndim; ++i) {
    if (step_of(a, i) >= bound) continue;
    int64_t step = (a.shape[i] - 1) * a.strides[i] * size_of(a.dtype);
    (step < 0 ? below : above) += step;
  }
  auto address = reinterpret_cast<uintptr_t>(a.data);
  return {address + uintptr_t(below), address + uintptr_t(above)};
}

}  // namespace

std::string shape_text(const Array& a) { return tuple_text(a.ndim, a.shape); }
std::string shape_text(const Extents& e) { return tuple_text(e.ndim, e.size); }
std::string strides_text(const Array& a) { return tuple_text(a.ndim, a.strides); }

bool is_empty(const Array& a) {
  return std::any_of(a.shape, a.shape + a.ndim, [](int64_t extent) { return extent == 0; });
}

void check_extents(const Array& a, const char* argument) {
  if (a.ndim < 0 || a.ndim > max_ndim) refuse("axes", argument, max_ndim, a.ndim);
  int64_t size =
      size_of(a.dtype);  // bytes if every extent of 0 were 1: products of extents are safe
  for (int i = 0; i < a.ndim; ++i) {
    if (a.shape[i] < 0) refuse("negative_extent", argument, shape_text(a));
    if (__builtin_mul_overflow(size, std::max<int64_t>(a.shape[i], 1), &size))
      refuse("elements", argument, shape_text(a));
  }
  if (is_empty(a)) return;
  int64_t below = 0, above = size_of(a.dtype);
  for (int i = 0; i < a.ndim; ++i) {
    int64_t step;
    if (__builtin_mul_overflow(a.shape[i] - 1, a.strides[i], &step) ||
        __builtin_mul_overflow(step, size_of(a.dtype), &step) ||
        __builtin_add_overflow(step < 0 ? below : above, step, step < 0 ? &below : &above))
      refuse("far_strides", argument, shape_text(a), strides_text(a));
  }
}

void check_memory(const Array& a, const char* argument) {
  if (is_empty(a)) return;
  if (a.data == nullptr) refuse("null", argument, shape_text(a));
  auto address = reinterpret_cast<uintptr_t>(a.data);
  if (address % size_of(a.dtype)) refuse("alignment", argument, size_of(a.dtype));
  Bytes bytes = bytes_of(a);
  if (bytes.begin > address || bytes.end <= address)
    refuse("address_space", argument, shape_text(a));
}

Bytes bytes_of(const Array& a) {
  if (is_empty(a)) return {};
  int64_t below = 0, above = 0;
  for (int i = 0; i < a.ndim; ++i) {
    int64_t step = (a.shape[i] - 1) * a.strides[i];
    (step < 0 ? below : above) += step;
  }
  auto address = reinterpret_cast<uintptr_t>(a.data);
  int64_t size = size_of(a.dtype);
  return {address + uintptr_t(below * size), address + uintptr_t((above + 1) * size)};
}

bool overlap(Bytes a, Bytes b) { return a.begin < b.end && b.begin < a.end; }

bool overlap(const Array& a, const Array& b) {
  if (!overlap(bytes_of(a), bytes_of(b))) return false;
  std::vector<uint64_t> steps;
  for (const Array* x : {&a, &b})
    for (int i = 0; i < x->ndim; ++i)
      if (uint64_t step = step_of(*x, i)) steps.push_back(step);
  // All steps from some length on have a greatest common divisor. Modulo it each array stays in the
  // run that its shorter steps reach: if the two runs are apart, so are the arrays.
  for (uint64_t shortest : steps) {
    uint64_t common = 0;
    for (uint64_t step : steps)
      if (step >= shortest) common = std::gcd(common, step);
    Bytes in_a = run_of(a, shortest), in_b = run_of(b, shortest);
    uint64_t distance = (in_b.begin % common + common - in_a.begin % common) % common;
    if (in_a.end - in_a.begin <= distance && in_b.end - in_b.begin <= common - distance)
      return false;
  }
  return true;
}

bool overlaps_itself(const Array& a) {
  if (is_empty(a)) return false;
  std::pair<int64_t, int64_t> axes[max_ndim];  // stride and extent, the fastest axis first
  int n = 0;
  for (int i = 0; i < a.ndim; ++i)
    if (a.shape[i] > 1) axes[n++] = {a.strides[i] < 0 ? -a.strides[i] : a.strides[i], a.shape[i]};
  std::sort(axes, axes + n);
  int64_t span = 0;  // of the axes so far: the next one must step over it
  for (int i = 0; i < n; ++i) {
    if (axes[i].first <= span) return true;
    span += axes[i].first * (axes[i].second - 1);
  }
  return false;
}

void check_writable(const Array& a, const char* argument) {
  check_memory(a, argument);
  if (!a.writable) refuse("read_only", argument);
  if (overlaps_itself(a)) refuse("overlaps_itself", argument, shape_text(a), strides_text(a));
}

void check_apart(const Array& written, const char* argument, const Array& other, const char* name) {
  if (overlap(written, other)) refuse("overlap", argument, name);
}

}  // namespace fanano
