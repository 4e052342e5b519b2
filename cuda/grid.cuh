// Launches of any number of blocks: a grid has fewer than 2^31 of them, problems may have more.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace fanano::cuda {

// One launch, and what it says: cudaGetLastError() may have that of an older call of the caller's.
template <class... Parameters>
cudaError_t in_grid(void (*kernel)(Parameters...), int64_t blocks, dim3 threads, int smem,
                    cudaStream_t stream, std::type_identity_t<Parameters>... arguments) {
  void* pointers[] = {&arguments...};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), unsigned(blocks), threads,
                          pointers, size_t(smem), stream);
}

// kernel(arguments..., first) for all blocks: block x of a grid is number first + x.
template <class... Parameters, class... Arguments>
cudaError_t in_grids(void (*kernel)(Parameters...), int64_t blocks, dim3 threads, int smem,
                     cudaStream_t stream, const Arguments&... arguments) {
  int device = 0, most = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  if (cudaError_t error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxGridDimX, device))
    return error;
  for (int64_t first = 0; first < blocks; first += most)
    if (cudaError_t error = in_grid(kernel, std::min<int64_t>(blocks - first, most), threads, smem,
                                    stream, arguments..., first))
      return error;
  return cudaSuccess;
}

}  // namespace fanano::cuda
