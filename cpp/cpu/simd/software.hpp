// Numbers of 16 bits to floats and back, where no instruction does it. After vec.hpp.
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

}  // namespace fanano::FANANO_ISA
