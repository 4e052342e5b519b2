// A case of the gradients, by the kernel that a caller gets.
#pragma once

#include "device_gradients.hpp"

namespace attention_case {

inline const Dtype dtypes[] = {Dtype::float64, Dtype::float32, Dtype::bfloat16, Dtype::float16};

inline bool is_sm80(const cuda::BackwardKernel& kernel) {
  return std::string(kernel.name).starts_with("backward_sm80");
}

inline void check_with(const Case& c, Dtype dtype, Wanted wanted = {}, bool partial = false) {
  device::with_type(dtype, [&]<class T>() {
    partial ? check_gradients<T, accumulator_t<T>>(c, dtype, wanted)
            : check_gradients<T, T>(c, dtype, wanted);
  });
}

inline void check_all(const Case& c, Wanted wanted = {}) {
  for (Dtype dtype : dtypes) check_with(c, dtype, wanted);
}

// With one dtype, another one each time.
inline void check_next(const Case& c, Wanted wanted = {}) {
  static size_t count = 0;
  check_with(c, dtypes[count++ % 4], wanted);
}

inline Shape shape(int64_t queries, int64_t keys, int64_t dim = 8, int64_t value_dim = 5) {
  return {1, 1, 1, queries, keys, dim, value_dim};
}

inline Case with_bias(Shape shape, Dtype dtype, int extends = 0b1111) {
  Case c{shape};
  c.masked = true, c.mask_dtype = dtype;
  for (int axis = 0; axis < 4; ++axis) c.extends[axis] = extends >> axis & 1;
  return c;
}

}  // namespace attention_case
