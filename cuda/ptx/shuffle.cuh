// One function per PTX instruction: what the lanes of a warp tell each other, shfl.sync and
// vote.sync. A double is two shuffles. Volatile, as all that a warp does together has to be: the
// compiler must not move one to where only some lanes want its result.
#pragma once

#include <cstdint>

namespace fanano::ptx {

// The x of the lane whose number differs by these bits.
__device__ __forceinline__ float shuffle_xor(float x, int bits) {
  float other;
  asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, -1;" : "=f"(other) : "f"(x), "r"(bits));
  return other;
}
__device__ __forceinline__ double shuffle_xor(double x, int bits) {
  double other;
  asm volatile("{\n\t.reg .b32 low, high;\n\t"
               "mov.b64 {low, high}, %1;\n\t"
               "shfl.sync.bfly.b32 low, low, %2, 31, -1;\n\t"
               "shfl.sync.bfly.b32 high, high, %2, 31, -1;\n\t"
               "mov.b64 %0, {low, high};\n\t}"
               : "=d"(other)
               : "d"(x), "r"(bits));
  return other;
}

__device__ __forceinline__ uint32_t shuffle_xor(uint32_t x, int bits) {
  return __float_as_uint(shuffle_xor(__uint_as_float(x), bits));
}

// The x of another lane.
__device__ __forceinline__ uint32_t shuffle(uint32_t x, int lane) {
  uint32_t other;
  asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, -1;" : "=r"(other) : "r"(x), "r"(lane));
  return other;
}
__device__ __forceinline__ float shuffle(float x, int lane) {
  return __uint_as_float(shuffle(__float_as_uint(x), lane));
}

// Bit l: what lane l says.
__device__ __forceinline__ uint32_t ballot(bool x) {
  uint32_t lanes;
  asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %1, 0;\nvote.sync.ballot.b32 %0, p, -1;\n}"
               : "=r"(lanes)
               : "r"(uint32_t(x)));
  return lanes;
}

}  // namespace fanano::ptx
