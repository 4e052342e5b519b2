// One function per PTX instruction: special registers.
#pragma once

namespace fanano::ptx {

// threadIdx.x, read anew: what follows from it is made again where it is needed.
__device__ __forceinline__ int thread_index() {
  int x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

}  // namespace fanano::ptx
