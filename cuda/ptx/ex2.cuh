// One function per PTX instruction: ex2.
#pragma once

namespace fanano::ptx {

// 2^x with an error of 2^-22 at most; subnormal numbers are zeros.
__device__ __forceinline__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace fanano::ptx
