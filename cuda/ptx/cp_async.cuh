// One function per PTX instruction: cp.async, copies to shared memory in the background.
#pragma once

#include <cstdint>

namespace fanano::ptx {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return uint32_t(__cvta_generic_to_shared(p));
}

// 16 bytes, of which so many are read; the others are zeros.
__device__ __forceinline__ void cp_async(uint32_t to_smem, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to_smem), "l"(from), "r"(bytes)
               : "memory");
}

// A float, or 0 if it is not there.
__device__ __forceinline__ void cp_async_float(uint32_t to_smem, const float* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to_smem), "l"(from),
               "r"(there ? 4 : 0)
               : "memory");
}

// What was begun since the last commit is a group.
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most so many of this thread's groups are in flight.
template <int Groups> __device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

}  // namespace fanano::ptx
