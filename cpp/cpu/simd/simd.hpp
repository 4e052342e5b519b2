// The vector header of the instruction set that this translation unit is compiled for.
#pragma once

#ifndef FANANO_ISA
#define FANANO_ISA scalar  // so that an editor can parse the kernels
#endif

#if defined(__AVX512F__)
#include "avx512.hpp"
#elif defined(__AVX2__)
#include "avx2.hpp"
#elif defined(FANANO_NEON)
#include "neon.hpp"
#else
#include "scalar.hpp"
#endif
