// NEON of aarch64. max and min are the generic ones: fmax gives NaN where either operand is NaN,
// fmaxnm the number, neither the second operand.
#pragma once

#include <arm_neon.h>

namespace fanano::FANANO_ISA {
inline constexpr int vector_bytes = 16, vector_registers = 32;
}  // namespace fanano::FANANO_ISA

#include "vec.hpp"

namespace fanano::FANANO_ISA {

using f32 = Vec<float>;
using f64 = Vec<double>;

FANANO_FN f32 fma(f32 a, f32 b, f32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
FANANO_FN f64 fma(f64 a, f64 b, f64 c) { return {vfmaq_f64(c.v, a.v, b.v)}; }

FANANO_FN f32 load_brain(const bfloat16* p) {
  return {vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(&p->bits)), 16))};
}
FANANO_FN f32 load_half(const float16* p) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))};
}
// To nearest, ties to even, subnormals kept: as FloatMode sets it.
FANANO_FN void store_half(f32 a, float16* p) {
  vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(a.v)));
}

}  // namespace fanano::FANANO_ISA
