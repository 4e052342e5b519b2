// Small arrays as the kernels read them: of numbers of 8 bytes, one after the other.
#pragma once

#include <cuda_runtime_api.h>

#include "../cpp/cuda.hpp"

namespace fanano::cuda {

// n numbers that are on the device already, as int64 or float64. Finite ones are made no larger
// than `most` in magnitude.
cudaError_t widen(const DeviceNumbers& from, int64_t n, double most, void* to, cudaStream_t);

}  // namespace fanano::cuda
