// AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

namespace fanano::FANANO_ISA {
inline constexpr int vector_bytes = 32, vector_registers = 16;
}  // namespace fanano::FANANO_ISA

#include "vec.hpp"

namespace fanano::FANANO_ISA {

using f32 = Vec<float>;
using f64 = Vec<double>;

FANANO_FN f32 fma(f32 a, f32 b, f32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
FANANO_FN f64 fma(f64 a, f64 b, f64 c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
FANANO_FN f32 max(f32 a, f32 b) { return {_mm256_max_ps(a.v, b.v)}; }
FANANO_FN f64 max(f64 a, f64 b) { return {_mm256_max_pd(a.v, b.v)}; }
FANANO_FN f32 min(f32 a, f32 b) { return {_mm256_min_ps(a.v, b.v)}; }
FANANO_FN f64 min(f64 a, f64 b) { return {_mm256_min_pd(a.v, b.v)}; }

FANANO_FN bool any_less(f32 a, f32 b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)) != 0;
}
FANANO_FN uint64_t equal_bits(f32 a, f32 b) {
  return uint64_t(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)));
}
FANANO_FN uint64_t equal_bits(f64 a, f64 b) {
  return uint64_t(_mm256_movemask_pd(_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)));
}

FANANO_FN Longs multiply_words(Longs a, uint32_t m) {
  return {Longs::Native(_mm256_mul_epu32(__m256i(a.v), _mm256_set1_epi64x(int64_t(m))))};
}
FANANO_FN uint64_t at_least(Words a, uint32_t least) {
  __m256i x = __m256i(a.v), larger = _mm256_max_epu32(x, _mm256_set1_epi32(int(least)));
  return uint64_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(x, larger))));
}

FANANO_FN f32 load_brain(const bfloat16* p) {
  __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16))};
}
FANANO_FN f32 load_half(const float16* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
FANANO_FN void store_half(f32 a, float16* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace fanano::FANANO_ISA
