// AVX-512 F, BW, DQ and VL, and BF16 and AMX where the flags have them.
#pragma once

#include <immintrin.h>

#ifdef __AVX512BF16__
#define FANANO_PAIRS
#endif
#ifdef __AMX_BF16__
#define FANANO_TILES
#endif

namespace fanano::FANANO_ISA {
inline constexpr int vector_bytes = 64, vector_registers = 32;
}  // namespace fanano::FANANO_ISA

#include "vec.hpp"

#ifdef FANANO_TILES
#include "tiles.hpp"
#endif

namespace fanano::FANANO_ISA {

using f32 = Vec<float>;
using f64 = Vec<double>;

FANANO_FN f32 fma(f32 a, f32 b, f32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
FANANO_FN f64 fma(f64 a, f64 b, f64 c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
FANANO_FN f32 max(f32 a, f32 b) { return {_mm512_max_ps(a.v, b.v)}; }
FANANO_FN f64 max(f64 a, f64 b) { return {_mm512_max_pd(a.v, b.v)}; }
FANANO_FN f32 min(f32 a, f32 b) { return {_mm512_min_ps(a.v, b.v)}; }
FANANO_FN f64 min(f64 a, f64 b) { return {_mm512_min_pd(a.v, b.v)}; }

FANANO_FN f32 select_bits(uint64_t bits, f32 t, f32 f) {
  return {_mm512_mask_blend_ps(__mmask16(bits), f.v, t.v)};
}
FANANO_FN f64 select_bits(uint64_t bits, f64 t, f64 f) {
  return {_mm512_mask_blend_pd(__mmask8(bits), f.v, t.v)};
}

FANANO_FN uint64_t equal_bits(f32 a, f32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
FANANO_FN uint64_t equal_bits(f64 a, f64 b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ); }

FANANO_FN bool any_less(f32 a, f32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ) != 0; }
FANANO_FN bool all_less(f32 a, f32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ) == 0xffff; }

FANANO_FN f32 fraction_above(f32 x) {
  return {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
FANANO_FN f32 scaled_by(f32 p, f32 x, float lowest) {
  __mmask16 there = _mm512_cmp_ps_mask(x.v, f32::all(lowest).v, _CMP_NLT_UQ);
  return {_mm512_maskz_scalef_ps(there, p.v, x.v)};
}

// As in avx2.hpp.
FANANO_FN Longs multiply_words(Longs a, uint32_t m) {
  return {Longs::Native(_mm512_mul_epu32(__m512i(a.v), _mm512_set1_epi64(int64_t(m))))};
}
FANANO_FN uint64_t at_least(Words a, uint32_t least) {
  return _mm512_cmpge_epu32_mask(__m512i(a.v), _mm512_set1_epi32(int(least)));
}

FANANO_FN f32 load_brain(const bfloat16* p) {
  __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(low, 16))};
}
FANANO_FN f32 load_half(const float16* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
FANANO_FN void store_half(f32 a, float16* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

#ifdef FANANO_PAIRS
FANANO_FN Brains narrowed(f32 first, f32 second) {
  return {__builtin_bit_cast(Brains::Native, _mm512_cvtne2ps_pbh(second.v, first.v))};
}
FANANO_FN f32 fma(Pairs a, Pairs b, f32 c) {
  return {
      _mm512_dpbf16_ps(c.v, __builtin_bit_cast(__m512bh, a.v), __builtin_bit_cast(__m512bh, b.v))};
}
#endif

}  // namespace fanano::FANANO_ISA
