// Vec<T>: one register of T, over the compiler's vector types. An ISA header defines vector_bytes
// before including this, and afterwards overloads what its instructions do better. One-liners only:
// anything with a loop over memory belongs to tile.hpp.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "../../math/exp2.hpp"
#include "../../math/online_softmax.hpp"

namespace fanano::FANANO_ISA {

template <int Bytes> struct SignedOf;
template <> struct SignedOf<2> { using type = int16_t; };
template <> struct SignedOf<4> { using type = int32_t; };
template <> struct SignedOf<8> { using type = int64_t; };

template <class T> struct Vec {
  static constexpr int width = vector_bytes / int(sizeof(T));
  using Scalar = T;
  using Bits = typename SignedOf<sizeof(T)>::type;
  typedef T Native __attribute__((vector_size(vector_bytes)));
  typedef T Unaligned __attribute__((vector_size(vector_bytes), aligned(alignof(T)), may_alias));
  typedef Bits Integer __attribute__((vector_size(vector_bytes)));
  Native v;

  // x - 0 is x, the sign of zero included, and compilers know it: a broadcast is all that is left.
  static FANANO_FN Vec all(T x) { return {x - Native{}}; }
  static FANANO_FN Vec load(const T* p) { return {*reinterpret_cast<const Unaligned*>(p)}; }
  FANANO_FN void store(T* p) const { *reinterpret_cast<Unaligned*>(p) = v; }
};

template <class T> FANANO_FN Vec<T> operator+(Vec<T> a, Vec<T> b) { return {a.v + b.v}; }
template <class T> FANANO_FN Vec<T> operator-(Vec<T> a, Vec<T> b) { return {a.v - b.v}; }
template <class T> FANANO_FN Vec<T> operator*(Vec<T> a, Vec<T> b) { return {a.v * b.v}; }
template <class T> FANANO_FN Vec<T> operator/(Vec<T> a, Vec<T> b) { return {a.v / b.v}; }
template <class T> FANANO_FN Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) { return {a.v * b.v + c.v}; }

// Where one rounding matters: an instruction set whose fma rounds twice has another way.
template <class T> FANANO_FN Vec<T> fma_once(Vec<T> a, Vec<T> b, Vec<T> c) { return fma(a, b, c); }

// The second operand where either is NaN, as x86 has it: max(limit, x) keeps the NaN of x.
template <class T> FANANO_FN Vec<T> max(Vec<T> a, Vec<T> b) { return {a.v > b.v ? a.v : b.v}; }
template <class T> FANANO_FN Vec<T> min(Vec<T> a, Vec<T> b) { return {a.v < b.v ? a.v : b.v}; }

// where a < b: t, elsewhere (NaN included): f
template <class T> FANANO_FN Vec<T> select_less(Vec<T> a, Vec<T> b, Vec<T> t, Vec<T> f) {
  return {a.v < b.v ? t.v : f.v};
}
template <class T> FANANO_FN Vec<T> select_equal(Vec<T> a, Vec<T> b, Vec<T> t, Vec<T> f) {
  return {a.v == b.v ? t.v : f.v};
}

// a bit for each lane where a == b
template <class T> FANANO_FN uint64_t equal_bits(Vec<T> a, Vec<T> b) {
  uint64_t bits = 0;
  for (int i = 0; i < Vec<T>::width; ++i) bits |= uint64_t(a.v[i] == b.v[i]) << i;
  return bits;
}
template <class T> FANANO_FN bool any_less(Vec<T> a, Vec<T> b) {
  bool any = false;
  for (int i = 0; i < Vec<T>::width; ++i) any |= a.v[i] < b.v[i];
  return any;
}
template <class T> FANANO_FN bool all_less(Vec<T> a, Vec<T> b) {
  bool all = true;
  for (int i = 0; i < Vec<T>::width; ++i) all &= a.v[i] < b.v[i];
  return all;
}

// where bit i of bits is set: lane i of t, elsewhere of f
template <class T> FANANO_FN Vec<T> select_bits(uint64_t bits, Vec<T> t, Vec<T> f) {
  typename Vec<T>::Integer lane = {};
  for (int i = 0; i < Vec<T>::width; ++i) lane[i] = typename Vec<T>::Bits(1) << i;
  typename Vec<T>::Integer all = lane - lane + typename Vec<T>::Bits(bits);
  return {(all & lane) != 0 ? t.v : f.v};
}

// 2^n from n + bias + magic: the low bits, moved to where the exponent is. n = -bias gives 0.
template <class T> FANANO_FN Vec<T> power_of_two(Vec<T> shifted) {
  using Integer = typename Vec<T>::Integer;
  return {(typename Vec<T>::Native)((Integer)shifted.v << mantissa<T>)};
}

// x - n and p 2^n, n the whole number below x; the latter 0 where x is below `lowest`, which is at
// least 1 - bias.
template <class T> FANANO_FN Vec<T> shifted_floor(Vec<T> x) {
  const Vec<T> shift = Vec<T>::all(magic<T> + bias<T>);
  Vec<T> nearest = x + shift;
  return select_less(x, nearest - shift, nearest - Vec<T>::all(1), nearest);
}
template <class T> FANANO_FN Vec<T> fraction_above(Vec<T> x) {
  return x - (shifted_floor(x) - Vec<T>::all(magic<T> + bias<T>));
}
template <class T> FANANO_FN Vec<T> scaled_by(Vec<T> p, Vec<T> x, T lowest) {
  return select_less(x, Vec<T>::all(lowest), Vec<T>::all(0), p * power_of_two(shifted_floor(x)));
}

// Two bfloat16 in each lane, the first in the low half.
using Pairs = Vec<uint32_t>;

FANANO_FN Vec<float> first_of(Pairs x) { return {(Vec<float>::Native)(x.v << 16)}; }
FANANO_FN Vec<float> second_of(Pairs x) { return {(Vec<float>::Native)(x.v & 0xffff0000)}; }

// Of floats that are bfloat16 numbers.
FANANO_FN Pairs joined(Vec<float> first, Vec<float> second) {
  return {(Pairs::Native)first.v >> 16 | (Pairs::Native)second.v};
}

// Bits of bfloat16: of two vectors of floats, one after the other (narrowed() makes them); or side
// by side, as Pairs have them.
using Brains = Vec<uint16_t>;

template <int... I> FANANO_FN Brains side_by_side(Brains x, std::integer_sequence<int, I...>) {
  return {__builtin_shufflevector(x.v, x.v, (I / 2 + I % 2 * (Brains::width / 2))...)};
}
FANANO_FN Brains side_by_side(Brains x) {
  return side_by_side(x, std::make_integer_sequence<int, Brains::width>());
}
FANANO_FN void store_halves(Brains x, bfloat16* first, bfloat16* second) {
  std::memcpy(first, &x.v, vector_bytes / 2);
  std::memcpy(second, reinterpret_cast<const char*>(&x.v) + vector_bytes / 2, vector_bytes / 2);
}

// Words of 32 bits, each lane one. What dropout's counters need: the lanes' numbers from first up,
// and a bit for each lane that is at least as large.
using Words = Vec<uint32_t>;

FANANO_FN Words count_from(uint32_t first) {
  Words x;
  for (int i = 0; i < Words::width; ++i) x.v[i] = first + uint32_t(i);
  return x;
}
template <class T> FANANO_FN uint64_t at_least(Vec<T> a, T least) {
  uint64_t bits = 0;
  for (int i = 0; i < Vec<T>::width; ++i) bits |= uint64_t(a.v[i] >= least) << i;
  return bits;
}

// As many words, even lanes and odd ones apart, each in the lower half of a longer lane: where they
// are multiplied. What the upper halves are does not matter to any of these.
using Longs = Vec<uint64_t>;
struct SpreadWords { Longs even, odd; };

FANANO_FN SpreadWords spread(Words x) {
  auto v = Longs::Native(x.v);
  return {{v}, {v >> 32}};
}
FANANO_FN Words joined(SpreadWords x) {
  return {Words::Native((x.even.v & 0xffffffffu) | x.odd.v << 32)};
}
FANANO_FN SpreadWords operator^(SpreadWords a, SpreadWords b) {
  return {{a.even.v ^ b.even.v}, {a.odd.v ^ b.odd.v}};
}
FANANO_FN SpreadWords operator^(SpreadWords a, uint32_t b) {
  return {{a.even.v ^ b}, {a.odd.v ^ b}};
}
template <class T> FANANO_FN Vec<T> multiply_words(Vec<T> a, uint32_t m) {
  return {(a.v & 0xffffffffu) * m};
}

// Upwards to an integer; numbers too large to have a fraction, infinities and NaN stay.
template <class T> FANANO_FN Vec<T> ceil(Vec<T> x) {
  constexpr T whole = magic<T> / T(1.5);  // from here on there are no fractions
  Vec<T> shift = select_less(x, Vec<T>::all(0), Vec<T>::all(-whole), Vec<T>::all(whole));
  Vec<T> nearest = (x + shift) - shift;
  Vec<T> up = select_less(nearest, x, nearest + Vec<T>::all(1), nearest);
  Vec<T> size = max(x, Vec<T>{} - x);
  return select_less(size, Vec<T>::all(whole), up, x);
}

using fanano::pivot;
template <class T> FANANO_FN Vec<T> pivot(Vec<T> m) {
  return select_equal(m, Vec<T>::all(-infinity<T>), Vec<T>::all(0), m);
}

}  // namespace fanano::FANANO_ISA
