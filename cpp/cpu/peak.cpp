// The yardsticks of speed: multiply-adds from registers to registers and nothing else, and bytes
// from memory to registers and nothing else. Every figure we publish is a fraction of what one of
// these loops reaches in the same process.
#include "entry_points.hpp"
#include "tile.hpp"
#include "typed.hpp"

namespace fanano::FANANO_ISA {

namespace {

// Holds x in a register: what is computed is neither hoisted nor dropped.
template <class V> FANANO_FN void keep(V& x) {
#if defined(FANANO_EMULATED)  // wider than registers are
  __asm__ volatile("" : "+m"(x.v));
#elif defined(__x86_64__)
  __asm__ volatile("" : "+v"(x.v));
#else
  __asm__ volatile("" : "+w"(x.v));
#endif
}

template <class E> double products(int64_t rounds) {
  constexpr int chains = vector_registers == 32 ? 16 : 12;  // enough to hide the latency
  using A = accumulator_t<E>;
  E numbers[vector_bytes / sizeof(E)];
  for (E& x : numbers) assign(x, A(0.5));
  auto x = Terms<E>::load(numbers), y = x;
  Vec<A> sum[chains];
#pragma GCC unroll 16
  for (Vec<A>& s : sum) s = Vec<A>::all(0);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (Vec<A>& s : sum) {
      s = fma(x, y, s);
      keep(s);
    }
  }
  return 2.0 * double(rounds) * chains * Vec<A>::width * together<E>;
}

#ifdef FANANO_TILES
template <> double products<bfloat16>(int64_t rounds) {
  const Ready<bfloat16> ready;
  bfloat16 numbers[tiles::side * tiles::deep];
  for (uint32_t bits = 1; bfloat16& x : numbers) {
    bits = bits * 1664525 + 1013904223;
    assign(x, float(int32_t(bits)) * 0x1p-31f);
  }
  tiles::load<4>(numbers, 2 * tiles::deep), tiles::load<6>(numbers, 2 * tiles::deep);
  tiles::zero<0>(), tiles::zero<1>(), tiles::zero<2>(), tiles::zero<3>();
  for (int64_t i = 0; i < rounds; ++i) {
    tiles::multiply<0, 4, 6>(), tiles::multiply<1, 4, 6>();
    tiles::multiply<2, 4, 6>(), tiles::multiply<3, 4, 6>();
  }
  return 2.0 * double(rounds) * 4 * tiles::side * tiles::side * tiles::deep;
}
#endif

}  // namespace

double peak(Dtype dtype, int64_t rounds) {
  double operations = 0;
  with_type(dtype, [&]<class T>() {
    // What is taken in parts is as exact as floats, and measured by theirs.
    using E = std::conditional_t<(parts<T, terms_t<T>> > 1), accumulator_t<T>, terms_t<T>>;
    operations = products<E>(rounds);
  });
  return operations;
}

uint64_t read(const void* data, int64_t bytes) {
  typedef uint64_t Words __attribute__((vector_size(vector_bytes), aligned(1), may_alias));
  constexpr int64_t line = 64, ahead = 4096, vectors = line / vector_bytes;
  auto from = static_cast<const char*>(data);
  uint64_t seen = 0;
  Words x[4] = {};
  int64_t at = 0;
  for (; at + line <= bytes; at += line) {
    __builtin_prefetch(from + at + ahead);
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i)
      x[i] ^= *reinterpret_cast<const Words*>(from + at + i * vector_bytes);
  }
  for (; at < bytes; ++at) seen ^= uint64_t(from[at]);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < vector_bytes / 8; ++j) seen ^= x[i][j];
  return seen;
}

}  // namespace fanano::FANANO_ISA
