// The baseline of every machine: 16-byte vectors of the compiler's own making, nothing assumed.
#pragma once

#define FANANO_PAIRS

namespace fanano::FANANO_ISA {
inline constexpr int vector_bytes = 16, vector_registers = 16;
}  // namespace fanano::FANANO_ISA

#include "vec.hpp"

#include "pairs.hpp"
#include "software.hpp"

namespace fanano::FANANO_ISA {

// A product of floats is exact in double.
FANANO_FN Vec<float> fma_once(Vec<float> a, Vec<float> b, Vec<float> c) {
  typedef double Wide __attribute__((vector_size(2 * vector_bytes)));
  Wide sum = __builtin_convertvector(a.v, Wide) * __builtin_convertvector(b.v, Wide) +
             __builtin_convertvector(c.v, Wide);
  return {__builtin_convertvector(sum, Vec<float>::Native)};
}

FANANO_FN Brains narrowed(Vec<float> first, Vec<float> second) { return to_brains(first, second); }

}  // namespace fanano::FANANO_ISA
