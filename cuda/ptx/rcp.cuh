// One function per PTX instruction: rcp.
#pragma once

namespace fanano::ptx {

// 1 / x with an error of one ulp at most; subnormal numbers are zeros.
__device__ __forceinline__ float rcp(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace fanano::ptx
