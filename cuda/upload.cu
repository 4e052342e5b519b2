// A few numbers from the host to the device, as parameters of a kernel: on return they have been
// taken, whoever owns them, nothing has waited for the stream, and a captured graph keeps them. A
// copy out of pageable memory promises none of that.
#include <algorithm>
#include <cstring>

#include "kernels.hpp"

namespace fanano::cuda {
namespace {

constexpr int most = 480;  // a kernel may have 4 KiB of parameters
constexpr int threads = 128;

struct Numbers { uint64_t data[most]; };

__global__ void __launch_bounds__(threads)
    upload_kernel(const __grid_constant__ Numbers from, int n, uint64_t* to) {
  for (int i = threadIdx.x; i < n; i += threads) to[i] = from.data[i];
}

}  // namespace

cudaError_t upload(const void* from, int64_t n, void* to, cudaStream_t stream) {
  for (int64_t i = 0; i < n; i += most) {
    Numbers numbers;
    const int here = int(std::min<int64_t>(n - i, most));
    std::memcpy(numbers.data, static_cast<const char*>(from) + i * 8, size_t(here) * 8);
    upload_kernel<<<1, threads, 0, stream>>>(numbers, here, static_cast<uint64_t*>(to) + i);
  }
  return cudaGetLastError();
}

}  // namespace fanano::cuda
