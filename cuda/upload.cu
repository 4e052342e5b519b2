// Small arrays as the kernels read them: of numbers of 8 bytes, one after the other.
#include <algorithm>
#include <cstring>

#include "grid.cuh"
#include "kernels.hpp"
#include "numbers.cuh"
#include "upload.hpp"

namespace fanano::cuda {
namespace {

constexpr int most_parameters = 480;  // a kernel may have 4 KiB of them
constexpr int threads = 128;

// ---- from the host ----

// As parameters of a kernel: on return they have been taken, whoever owns them, nothing has waited
// for the stream, and a captured graph keeps them. A copy out of pageable memory promises none of
// that.
struct Numbers { uint64_t data[most_parameters]; };

__global__ void __launch_bounds__(threads)
    upload_kernel(const __grid_constant__ Numbers from, int n, uint64_t* to) {
  for (int i = threadIdx.x; i < n; i += threads) to[i] = from.data[i];
}

// ---- on the device ----

__device__ int64_t widened(int64_t x, double) { return x; }
__device__ double widened(double x, double most) {
  const bool finite = x - x == 0;
  return finite && x > most ? most : finite && x < -most ? -most : x;
}

template <class T> __device__ auto number_of(T x) {
  if constexpr (std::is_integral_v<T>)
    return int64_t(x);
  else
    return double(number(x));
}

template <class T>
__global__ void __launch_bounds__(threads)
    widen_kernel(const DeviceNumbers from, int64_t n, double most, void* to) {
  using Wide = decltype(number_of(T()));
  for (int64_t i = blockIdx.x * int64_t(threads) + threadIdx.x; i < n;
       i += int64_t(gridDim.x) * threads) {
    const int64_t at = i / from.columns * from.row + i % from.columns * from.column;
    static_cast<Wide*>(to)[i] = widened(number_of(static_cast<const T*>(from.data)[at]), most);
  }
}

template <class T>
cudaError_t launch_widen(const DeviceNumbers& from, int64_t n, double most, void* to,
                         cudaStream_t on) {
  const int64_t blocks = std::min<int64_t>((n + threads - 1) / threads, 1024);
  return in_grid(widen_kernel<T>, blocks, threads, 0, on, from, n, most, to);
}

}  // namespace

cudaError_t upload(const void* from, int64_t n, void* to, cudaStream_t stream) {
  for (int64_t i = 0; i < n; i += most_parameters) {
    Numbers numbers;
    const int here = int(std::min<int64_t>(n - i, most_parameters));
    std::memcpy(numbers.data, static_cast<const char*>(from) + i * 8, size_t(here) * 8);
    if (cudaError_t error = in_grid(upload_kernel, 1, threads, 0, stream, numbers, here,
                                    static_cast<uint64_t*>(to) + i))
      return error;
  }
  return cudaSuccess;
}

cudaError_t widen(const DeviceNumbers& from, int64_t n, double most, void* to,
                  cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  switch (from.kind) {
    case DeviceNumbers::int32: return launch_widen<int32_t>(from, n, most, to, stream);
    case DeviceNumbers::int64: return launch_widen<int64_t>(from, n, most, to, stream);
    case DeviceNumbers::float16: return launch_widen<float16>(from, n, most, to, stream);
    case DeviceNumbers::bfloat16: return launch_widen<bfloat16>(from, n, most, to, stream);
    case DeviceNumbers::float32: return launch_widen<float>(from, n, most, to, stream);
    case DeviceNumbers::float64: return launch_widen<double>(from, n, most, to, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace fanano::cuda
