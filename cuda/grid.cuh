// Launches of any number of blocks: a grid has fewer than 2^31 of them, problems may have more.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

namespace fanano::cuda {

// launch(n, first) for the blocks [first, first + n): block x of a grid is number first + x.
template <class Launch> cudaError_t in_grids(int64_t blocks, Launch launch) {
  int device = 0, most = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  if (cudaError_t error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxGridDimX, device))
    return error;
  for (int64_t first = 0; first < blocks; first += most)
    launch(unsigned(std::min<int64_t>(blocks - first, most)), first);
  return cudaGetLastError();
}

}  // namespace fanano::cuda
