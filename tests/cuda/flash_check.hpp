// A case of attention against every variant of flash attention that takes it.
#pragma once

#include "device_problem.hpp"
#include "kernels_table.hpp"

namespace attention_case {

inline bool is_sm80(const cuda::FlashKernel& kernel) {
  return std::string(kernel.name).starts_with("flash_sm80");
}
inline bool is_decode(const cuda::FlashKernel& kernel) {
  return std::string(kernel.name).starts_with("decode_sm80");
}

// What a caller runs: of each dtype the first row that takes the problem. Out: of results.
template <class T, class Out> void check_flash(const Case& c, Dtype dtype) {
  DeviceProblem<T, Out> problem(c, dtype);
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels) {
    if (kernel->dtype != dtype || !kernel->takes(problem.p)) continue;
    device::check(launch(*kernel, problem.p));
    return problem.judge(kernel->name);
  }
  CHECK(!"some variant takes it");
}

inline void check_flash(const Case& c) {
  check_flash<float16, float16>(c, Dtype::float16);
  check_flash<bfloat16, bfloat16>(c, Dtype::bfloat16);
}

inline Shape flash_shape(int64_t batch, int64_t heads, int64_t kv_heads, int64_t queries,
                         int64_t keys, int64_t dim = 64, int64_t value_dim = -1) {
  return {batch, heads, kv_heads, queries, keys, dim, value_dim < 0 ? dim : value_dim};
}

// Bits of so many causal rows, whose block computes again for a NaN of the last row's last value;
// the last row alone sees it.
template <class T> void check_neighbours(int64_t queries, Dtype dtype) {
  auto rows = [&](int nan_column) {  // -1: none
    constexpr int64_t keys = 40, dim = 64;
    DeviceProblem<T> problem({flash_shape(1, 1, 1, queries, keys, dim), {-1, 0}}, dtype);
    const T nan = device::narrow<T>(NAN);
    if (nan_column >= 0)
      device::check(cudaMemcpy(static_cast<T*>(problem.p.v.data) + (keys - 1) * dim + nan_column,
                               &nan, sizeof nan, cudaMemcpyHostToDevice));
    for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels)
      if (kernel->takes(problem.p)) {
        device::check(launch(*kernel, problem.p));
        break;
      }
    device::finish();
    std::vector<double> out = problem.out();
    out.resize(size_t((queries - 1) * dim));
    return out;
  };
  for (int column : {0, 1, 62}) CHECK(rows(column) == rows(-1));
}
inline void check_neighbours(int64_t queries) {
  check_neighbours<float16>(queries, Dtype::float16);
  check_neighbours<bfloat16>(queries, Dtype::bfloat16);
}

}  // namespace attention_case
