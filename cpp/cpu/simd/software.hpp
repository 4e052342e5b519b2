// What instructions of other machines do, by the compiler's means: so kernels that take them run on
// all. After vec.hpp.
#pragma once

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

FANANO_FN Brains to_brains(Vec<float> first, Vec<float> second) {
  Brains x;
  for (int i = 0; i < Vec<float>::width; ++i) {
    x.v[i] = to_bfloat16(first.v[i]).bits;
    x.v[i + Vec<float>::width] = to_bfloat16(second.v[i]).bits;
  }
  return x;
}

// Products of pairs take subnormal numbers for zeros.
FANANO_FN Vec<float> flushed(Vec<float> x) {
  auto bits = (Vec<float>::Integer)x.v;
  return {(bits & 0x7f800000) != 0 ? x.v : Vec<float>::Native{}};
}
FANANO_FN Vec<float> fma(Pairs a, Pairs b, Vec<float> c) {
  c = flushed(fma(flushed(second_of(a)), flushed(second_of(b)), c));
  return flushed(fma(flushed(first_of(a)), flushed(first_of(b)), c));
}

}  // namespace fanano::FANANO_ISA
