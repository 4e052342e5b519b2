// AVX-512, its BF16 and AMX for tests on machines without them (cmake/isa.cmake): vectors of their
// size, and what their instructions compute, to the bit.
#pragma once

#include <cmath>

namespace fanano::FANANO_ISA {
inline constexpr int vector_bytes = 64, vector_registers = 32;
#ifdef FANANO_PAIRS
inline constexpr bool bf16_dot = true;
#else
inline constexpr bool bf16_dot = false;
#endif
#ifdef FANANO_TILES
inline constexpr bool bf16_tiles = true;
#else
inline constexpr bool bf16_tiles = false;
#endif
}  // namespace fanano::FANANO_ISA

#include "vec.hpp"

#include "software.hpp"

namespace fanano::FANANO_ISA {

template <class T> FANANO_FN Vec<T> rounded_once(Vec<T> a, Vec<T> b, Vec<T> c) {
  for (int i = 0; i < Vec<T>::width; ++i) c.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
  return c;
}
FANANO_FN Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return rounded_once(a, b, c); }
FANANO_FN Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return rounded_once(a, b, c);
}

FANANO_FN Brains narrowed(Vec<float> first, Vec<float> second) {
  return to_brains(flushed(first), flushed(second));
}

#ifdef FANANO_TILES

// Products of the first terms of each pair are one sum, those of the second another, both from 0;
// subnormal numbers are taken for zeros.
namespace tiles {

inline constexpr int side = 16, deep = 32;

inline thread_local Vec<float> registers[8][side];

struct Session {
  Session() = default;
  ~Session() {  // nothing may rely on what it leaves
    for (auto& rows : registers)
      for (Vec<float>& x : rows) x = Vec<float>::all(NAN);
  }
  Session(const Session&) = delete;
};

template <int To> inline void zero() {
  for (Vec<float>& x : registers[To]) x = Vec<float>::all(0);
}
template <int To> inline void load(const void* p, int64_t stride) {
  for (int i = 0; i < side; ++i)
    std::memcpy(&registers[To][i], static_cast<const char*>(p) + i * stride, sizeof(Vec<float>));
}
template <int From> inline void store(void* p, int64_t stride) {
  for (int i = 0; i < side; ++i)
    std::memcpy(static_cast<char*>(p) + i * stride, &registers[From][i], sizeof(Vec<float>));
}
template <int To, int A, int B> inline void multiply() {
  for (int m = 0; m < side; ++m) {
    Vec<float> first = Vec<float>::all(0), second = first;
    Pairs row = {(Pairs::Native)registers[A][m].v};
    for (int k = 0; k < side; ++k) {
      Pairs a = Pairs::all(row.v[k]), b = {(Pairs::Native)registers[B][k].v};
      first = flushed(fma(flushed(first_of(a)), flushed(first_of(b)), first));
      second = flushed(fma(flushed(second_of(a)), flushed(second_of(b)), second));
    }
    registers[To][m] = flushed(flushed(registers[To][m]) + flushed(first + second));
  }
}

}  // namespace tiles

#endif

}  // namespace fanano::FANANO_ISA
