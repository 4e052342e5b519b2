// The vector header of the instruction set that this translation unit is compiled for.
#pragma once

#ifndef FANANO_ISA
#define FANANO_ISA scalar  // so that an editor can parse the kernels
#endif

// A row of the ISA table has of its own what its flags change, and may share the rest with the row
// whose flags it adds to (cmake/isa.cmake).
namespace fanano::FANANO_ISA {
#ifdef FANANO_SHARED
inline constexpr bool shares_kernels = true;
#else
#define FANANO_SHARED FANANO_ISA
inline constexpr bool shares_kernels = false;
#endif
}  // namespace fanano::FANANO_ISA

#if defined(FANANO_EMULATED)
#include "emulated.hpp"
#elif defined(__AVX512F__)
#include "avx512.hpp"
#elif defined(__AVX2__)
#include "avx2.hpp"
#elif defined(FANANO_NEON)
#include "neon.hpp"
#else
#include "scalar.hpp"
#endif

// Whether bfloat16 is multiplied by pairs, and by tiles of them.
namespace fanano::FANANO_ISA {
#ifdef FANANO_PAIRS
inline constexpr bool bf16_dot = true;
#else
inline constexpr bool bf16_dot = false;
#endif
#ifdef FANANO_TILES
inline constexpr bool bf16_tiles = true;
#else
inline constexpr bool bf16_tiles = false;
#endif
}  // namespace fanano::FANANO_ISA
