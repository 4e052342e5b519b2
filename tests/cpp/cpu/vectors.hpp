// The vector functions of one instruction set, over arrays: so that a program compiled for any x86
// can test those that the machine has: a test compiled for AVX-512 could not even start elsewhere.
#pragma once

#include <cstdint>

namespace fanano {

struct VectorFunctions {  // n is a multiple of 16
  const char* isa;
  void (*exp2_float)(const float*, float*, int64_t n);
  void (*exp2_double)(const double*, double*, int64_t n);
  void (*exp_float)(const float*, float*, int64_t n);
  void (*exp_double)(const double*, double*, int64_t n);
  void (*tanh_float)(const float*, float*, int64_t n);
  void (*tanh_double)(const double*, double*, int64_t n);
  void (*ceil_float)(const float*, float*, int64_t n);
  void (*ceil_double)(const double*, double*, int64_t n);

  // Of all lanes of a vector, at a and b: bit 0 is whether any a is below b, bit 1 whether all are.
  int width;
  int (*compare)(const float* a, const float* b);

  // Rows of the 16-bit types, elements `stride` apart, any n.
  void (*widen_float16)(const uint16_t*, int64_t stride, float*, int64_t n);
  void (*widen_bfloat16)(const uint16_t*, int64_t stride, float*, int64_t n);
  void (*narrow_float16)(const float*, uint16_t*, int64_t stride, int64_t n);
  void (*narrow_bfloat16)(const float*, uint16_t*, int64_t stride, int64_t n);

  // 2^x to the eight bits of bfloat16; pairs of (x[i], y[i]), which are such numbers.
  void (*exp2_rounded)(const float*, float*, int64_t n);
  void (*join)(const float* x, const float* y, uint16_t* pairs, int64_t n);

  // Where there are products of pairs, else null: c += the two products of the pairs p and q.
  void (*pair_products)(const uint16_t* p, const uint16_t* q, float* c, int64_t n);
};

}  // namespace fanano
