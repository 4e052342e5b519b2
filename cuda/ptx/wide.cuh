// One function per PTX instruction: loads and stores of one width. Written in C++, one of 16 bytes
// can become four of 4.
#pragma once

#include <cstdint>

namespace fanano::ptx {

struct Words { uint32_t w[4]; };

__device__ __forceinline__ Words load_shared(uint32_t from_smem) {
  Words x;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.w[0]), "=r"(x.w[1]), "=r"(x.w[2]), "=r"(x.w[3])
               : "r"(from_smem)
               : "memory");
  return x;
}

__device__ __forceinline__ void store_shared(uint32_t to_smem, Words x) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to_smem), "r"(x.w[0]), "r"(x.w[1]),
               "r"(x.w[2]), "r"(x.w[3])
               : "memory");
}

__device__ __forceinline__ void store_shared(uint32_t to_smem, uint32_t x) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to_smem), "r"(x) : "memory");
}

__device__ __forceinline__ float load_shared_float(uint32_t from_smem) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from_smem) : "memory");
  return x;
}

// Two floats.
__device__ __forceinline__ float2 load_shared_pair(uint32_t from_smem) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
               : "=f"(x.x), "=f"(x.y)
               : "r"(from_smem)
               : "memory");
  return x;
}

__device__ __forceinline__ void store_shared(uint32_t to_smem, float x) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(to_smem), "f"(x) : "memory");
}

__device__ __forceinline__ Words load_global(const void* from) {
  Words x;
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.w[0]), "=r"(x.w[1]), "=r"(x.w[2]), "=r"(x.w[3])
               : "l"(from)
               : "memory");
  return x;
}

__device__ __forceinline__ void store_global(float* to, float2 x) {
  asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(x.x), "f"(x.y) : "memory");
}

__device__ __forceinline__ void store_global(void* to, Words x) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(x.w[0]), "r"(x.w[1]),
               "r"(x.w[2]), "r"(x.w[3])
               : "memory");
}

}  // namespace fanano::ptx
