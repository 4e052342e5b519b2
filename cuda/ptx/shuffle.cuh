// One function per PTX instruction: shfl.sync.
#pragma once

namespace fanano::ptx {

// The x of the lane whose number differs by these bits.
__device__ __forceinline__ float shuffle_xor(float x, int bits) {
  float other;
  asm("shfl.sync.bfly.b32 %0, %1, %2, 31, -1;" : "=f"(other) : "f"(x), "r"(bits));
  return other;
}

}  // namespace fanano::ptx
