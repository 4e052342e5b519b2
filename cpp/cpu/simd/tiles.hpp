// The instructions of tile registers (AMX): of 16 rows of 64 bytes each.
#pragma once

namespace fanano::FANANO_ISA::tiles {

inline constexpr int side = 16, deep = 32;  // rows and columns of a product; terms of each

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

}  // namespace fanano::FANANO_ISA::tiles
