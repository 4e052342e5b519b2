// The CPU's kernels where the cases of tests/cuda look for a device's.
#pragma once

#include <cuda_runtime_api.h>

#include "attention.hpp"

namespace fanano::cuda {
inline namespace on_cpu {  // a build with CUDA links the device's table, too

struct Kernel {
  const char* name;
  Dtype dtype;
  void (*run)(const Problem&, int max_threads);

  bool takes(const Problem&) const { return true; }
  int64_t workspace(const Problem&) const { return 0; }
  cudaError_t launch(const Problem& p, void*, cudaStream_t) const {
    Problem here = p;
    Dropout& d = here.dropout;
    if (d.device_seed) d.seed = *d.device_seed;
    if (const uint32_t* place = d.device_place)
      d.batch += place[0], d.head += place[1], d.row += place[2], d.column += place[3];
    run(here, 0);
    return cudaSuccess;
  }
};
using FlashKernel = Kernel;
using BackwardKernel = Kernel;

inline const Kernel forward_of[] = {{"forward", Dtype::float64, forward},
                                    {"forward", Dtype::float32, forward},
                                    {"forward", Dtype::bfloat16, forward},
                                    {"forward", Dtype::float16, forward}};
inline const Kernel backward_of[] = {{"backward", Dtype::float64, backward},
                                     {"backward", Dtype::float32, backward},
                                     {"backward", Dtype::bfloat16, backward},
                                     {"backward", Dtype::float16, backward}};
inline const Kernel* const all_flash_kernels[] = {&forward_of[0], &forward_of[1], &forward_of[2],
                                                  &forward_of[3]};
inline const Kernel* const all_backward_kernels[] = {&backward_of[0], &backward_of[1],
                                                     &backward_of[2], &backward_of[3]};

}  // namespace on_cpu
}  // namespace fanano::cuda
