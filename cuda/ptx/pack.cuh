// One function per PTX instruction: cvt to pairs of 16-bit numbers, rounded to nearest even. The
// first argument goes to the lower half.
#pragma once

#include <cstdint>

#include "../../cpp/math/numbers.hpp"

namespace fanano::ptx {

__device__ __forceinline__ uint32_t pack(bfloat16, float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ __forceinline__ uint32_t pack(float16, float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

}  // namespace fanano::ptx
