// One function per PTX instruction: shfl.sync. A double is two of them.
#pragma once

namespace fanano::ptx {

// The x of the lane whose number differs by these bits.
__device__ __forceinline__ float shuffle_xor(float x, int bits) {
  float other;
  asm("shfl.sync.bfly.b32 %0, %1, %2, 31, -1;" : "=f"(other) : "f"(x), "r"(bits));
  return other;
}
__device__ __forceinline__ double shuffle_xor(double x, int bits) {
  double other;
  asm("{\n\t.reg .b32 low, high;\n\t"
      "mov.b64 {low, high}, %1;\n\t"
      "shfl.sync.bfly.b32 low, low, %2, 31, -1;\n\t"
      "shfl.sync.bfly.b32 high, high, %2, 31, -1;\n\t"
      "mov.b64 %0, {low, high};\n\t}"
      : "=d"(other)
      : "d"(x), "r"(bits));
  return other;
}

}  // namespace fanano::ptx
