// The baseline of every machine: 16-byte vectors of the compiler's own making, nothing assumed.
#pragma once

namespace fanano::FANANO_ISA {
inline constexpr int vector_bytes = 16, vector_registers = 16;
inline constexpr bool bf16_dot = true, bf16_tiles = false;
}  // namespace fanano::FANANO_ISA

#include "vec.hpp"

namespace fanano::FANANO_ISA {

FANANO_FN Vec<float> load_brain(const bfloat16* p) {
  Vec<float> a;
  for (int i = 0; i < Vec<float>::width; ++i) a.v[i] = to_float(p[i]);
  return a;
}
FANANO_FN Vec<float> load_half(const float16* p) {
  Vec<float> a;
  for (int i = 0; i < Vec<float>::width; ++i) a.v[i] = to_float(p[i]);
  return a;
}
FANANO_FN void store_half(Vec<float> a, float16* p) {
  for (int i = 0; i < Vec<float>::width; ++i) p[i] = to_float16(a.v[i]);
}

// A product of floats is exact in double.
FANANO_FN Vec<float> fma_once(Vec<float> a, Vec<float> b, Vec<float> c) {
  typedef double Wide __attribute__((vector_size(2 * vector_bytes)));
  Wide sum = __builtin_convertvector(a.v, Wide) * __builtin_convertvector(b.v, Wide) +
             __builtin_convertvector(c.v, Wide);
  return {__builtin_convertvector(sum, Vec<float>::Native)};
}

FANANO_FN Brains narrowed(Vec<float> first, Vec<float> second) {
  Brains x;
  for (int i = 0; i < Vec<float>::width; ++i) {
    x.v[i] = to_bfloat16(first.v[i]).bits;
    x.v[i + Vec<float>::width] = to_bfloat16(second.v[i]).bits;
  }
  return x;
}

// What the instruction of other machines does, so that its kernels run on all: subnormal numbers
// are taken for zeros.
FANANO_FN Vec<float> flushed(Vec<float> x) {
  auto bits = (Vec<float>::Integer)x.v;
  return {(bits & 0x7f800000) != 0 ? x.v : Vec<float>::Native{}};
}
FANANO_FN Vec<float> fma(Pairs a, Pairs b, Vec<float> c) {
  c = flushed(fma(flushed(second_of(a)), flushed(second_of(b)), c));
  return flushed(fma(flushed(first_of(a)), flushed(first_of(b)), c));
}

}  // namespace fanano::FANANO_ISA
