// FANANO_FN marks every function of cpp/math: host and device, always inlined. Always, because
// these headers are compiled once per instruction set: an out-of-line copy would be one symbol for
// all of them, and the linker might keep the AVX-512 one for a machine without AVX-512.
#pragma once

#ifdef __CUDACC__
#define FANANO_FN __host__ __device__ __forceinline__
#else
#define FANANO_FN inline __attribute__((always_inline))
#endif
