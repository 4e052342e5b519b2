// The instructions of tile registers (AMX), of 16 rows of 64 bytes each. After vec.hpp.
#pragma once

namespace fanano::FANANO_ISA::tiles {

inline constexpr int side = 16, deep = 32;  // rows and columns of a product; terms of each

#ifdef FANANO_EMULATED

inline thread_local Vec<float> registers[8][side];
inline thread_local bool there = false;

template <int I> inline Vec<float>* rows_of() {
  if (!there) __builtin_trap();  // as the instructions do
  return registers[I];
}

struct Session {
  Session() { there = true; }
  ~Session() { there = false; }
  Session(const Session&) = delete;
};

template <int To> inline void zero() {
  for (int i = 0; i < side; ++i) rows_of<To>()[i] = Vec<float>::all(0);
}
template <int To> inline void load(const void* p, int64_t stride) {
  for (int i = 0; i < side; ++i)
    std::memcpy(rows_of<To>() + i, static_cast<const char*>(p) + i * stride, sizeof(Vec<float>));
}
template <int From> inline void store(void* p, int64_t stride) {
  for (int i = 0; i < side; ++i)
    std::memcpy(static_cast<char*>(p) + i * stride, rows_of<From>() + i, sizeof(Vec<float>));
}
// The first terms of pairs are one sum, the second ones another, both from 0.
template <int To, int A, int B> inline void multiply() {
  for (int m = 0; m < side; ++m) {
    Vec<float> first = Vec<float>::all(0), second = first, &to = rows_of<To>()[m];
    const Pairs row{(Pairs::Native)rows_of<A>()[m].v};
    for (int k = 0; k < side; ++k) {
      const Pairs a = Pairs::all(row.v[k]), b{(Pairs::Native)rows_of<B>()[k].v};
      first = flushing_fma(first_of(a), first_of(b), first);
      second = flushing_fma(second_of(a), second_of(b), second);
    }
    to = flushed(flushed(to) + flushed(first + second));
  }
}

#else

// All registers hold whole tiles.
struct Shape {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
  constexpr Shape() {
    for (int i = 0; i < 8; ++i) bytes[i] = 2 * deep, rows[i] = side;
  }
};
inline constexpr Shape shape;
static_assert(sizeof shape == 64);

// They are there while it lives: one is enough for a task.
struct Session {
  Session() { __asm__ volatile("ldtilecfg %0" ::"m"(shape)); }
  ~Session() { __asm__ volatile("tilerelease" ::: "memory"); }
  Session(const Session&) = delete;
};

template <int To> FANANO_FN void zero() { __asm__ volatile("tilezero %%tmm%c0" ::"i"(To)); }
template <int To> FANANO_FN void load(const void* p, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(To) : "memory");
}
template <int From> FANANO_FN void store(void* p, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(From) : "memory");
}
template <int To, int A, int B> FANANO_FN void multiply() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(To), "i"(A), "i"(B));
}

#endif

}  // namespace fanano::FANANO_ISA::tiles
