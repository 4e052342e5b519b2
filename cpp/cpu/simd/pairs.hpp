// Products of pairs of bfloat16 where no instruction makes them: what those of other machines do,
// so that kernels that take pairs run on all. After vec.hpp and what overloads its fma.
#pragma once

namespace fanano::FANANO_ISA {

FANANO_FN Brains to_brains(Vec<float> first, Vec<float> second) {
  Brains x;
  for (int i = 0; i < Vec<float>::width; ++i) {
    x.v[i] = to_bfloat16(first.v[i]).bits;
    x.v[i + Vec<float>::width] = to_bfloat16(second.v[i]).bits;
  }
  return x;
}

// Subnormal numbers are taken for zeros of their sign.
FANANO_FN Vec<float> flushed(Vec<float> x) {
  auto bits = (Vec<float>::Integer)x.v;
  return {(Vec<float>::Native)((bits & 0x7f800000) != 0 ? bits : bits & INT32_MIN)};
}
FANANO_FN Vec<float> flushing_fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return flushed(fma(flushed(a), flushed(b), flushed(c)));
}
FANANO_FN Vec<float> fma(Pairs a, Pairs b, Vec<float> c) {
  return flushing_fma(first_of(a), first_of(b), flushing_fma(second_of(a), second_of(b), c));
}

}  // namespace fanano::FANANO_ISA
