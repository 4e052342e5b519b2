// Arrays on the device and numbers of 16 bits on the host, for tests of kernels. Nothing here knows
// whether a GPU or the emulator runs them.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "math/numbers.hpp"
#include "problem.hpp"

namespace device {

inline void check(cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error("CUDA: " + std::string(cudaGetErrorString(error)));
}

// What was launched has run, and did nothing wrong.
inline void finish() {
  check(cudaGetLastError());
  check(cudaDeviceSynchronize());
}

template <class T> class Buffer {
  T* data_ = nullptr;
  size_t n_;

 public:
  // Without values there is nothing in it: to copy back what no kernel has written is an error
  // where the emulator runs.
  explicit Buffer(size_t n) : n_(n) {
    check(cudaMalloc(reinterpret_cast<void**>(&data_), n * sizeof(T)));
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { fill(values); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }

  void fill(const std::vector<T>& values) {
    check(cudaMemcpy(data_, values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  T* data() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> host(n_);
    if (n_) check(cudaMemcpy(host.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }
};

// ---- dtypes on the host ----
template <class T> T narrow(double x) {
  using namespace fanano;
  if constexpr (std::is_same_v<T, bfloat16>)
    return to_bfloat16(float(x));
  else if constexpr (std::is_same_v<T, float16>)
    return to_float16(float(x));
  else
    return T(x);
}
inline double widen(double x) { return x; }
inline double widen(int32_t x) { return x; }
inline double widen(int64_t x) { return double(x); }
inline double widen(float x) { return x; }
template <class T> double widen(T x) { return fanano::to_float(x); }

template <class T> double rounded(double x) { return widen(narrow<T>(x)); }

// The distance of two neighbouring numbers at |x|.
template <class T> double ulp(double x) {
  constexpr bool half = std::is_same_v<T, fanano::float16>, wide = std::is_same_v<T, double>;
  constexpr int digits = wide ? 52 : std::is_same_v<T, float> ? 23 : half ? 10 : 7;
  constexpr int least = wide ? -1022 : half ? -14 : -126;
  int exponent = x == 0 ? least : std::max(std::ilogb(x), least);
  return std::ldexp(1.0, exponent - digits);
}

template <class A> double eps() { return ulp<A>(1); }

template <class T> std::vector<T> narrow_all(const std::vector<double>& x) {
  std::vector<T> all;
  for (double v : x) all.push_back(narrow<T>(v));
  return all;
}

// f.operator()<T>() for the element type of a dtype.
template <class F> void with_type(fanano::Dtype dtype, F f) {
  if (dtype == fanano::Dtype::float64) return f.template operator()<double>();
  if (dtype == fanano::Dtype::float32) return f.template operator()<float>();
  if (dtype == fanano::Dtype::bfloat16) return f.template operator()<fanano::bfloat16>();
  if (dtype == fanano::Dtype::float16) return f.template operator()<fanano::float16>();
  throw std::runtime_error("no such dtype in the tests");
}

}  // namespace device
