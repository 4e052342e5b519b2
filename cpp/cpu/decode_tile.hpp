// The micro-kernels of decode, where query rows are few: lanes are columns of q, k and v. k and v
// are read once, in their own type, along their rows.
#pragma once

#include <utility>

#include "tile.hpp"

namespace fanano::FANANO_ISA {

// A matrix that will be read soon: its lines are asked for in the order of memory, a few at a time
// between other work.
struct Ahead {
  const char* at = nullptr;
  int64_t row = 0, bytes = 0, rows = 0, column = 0;

  template <class T> static Ahead of(const T* x, int64_t row, int64_t n, int64_t dim) {
    return {reinterpret_cast<const char*>(x), row * int64_t(sizeof(T)), dim * int64_t(sizeof(T)), n,
            0};
  }
  FANANO_FN void ask(int64_t more) {
    if (rows <= 0) return;
    int64_t end = column + more;
    for (int64_t line = (column + 63) / 64 * 64; line < end && line < bytes; line += 64)
      __builtin_prefetch(at + line);
    column = end;
    if (column >= bytes) column = 0, at += row, --rows;
  }
};

template <class A> inline constexpr int lanes_of_16_bytes = 16 / int(sizeof(A));

template <int... I, class A>
FANANO_FN Vec<A> add_neighbours(Vec<A> a, Vec<A> b, std::integer_sequence<int, I...>) {
  constexpr int w = Vec<A>::width, L = lanes_of_16_bytes<A>;
  auto low = __builtin_shufflevector(a.v, b.v, (I / L * L + I % L / 2 + I % 2 * w)...);
  auto high = __builtin_shufflevector(a.v, b.v, (I / L * L + I % L / 2 + L / 2 + I % 2 * w)...);
  return {low + high};
}

// In each 16 bytes: a and b in turn, half of their lanes added to the other half.
template <class A> FANANO_FN Vec<A> add_halves(Vec<A> a, Vec<A> b) {
  return add_neighbours(a, b, std::make_integer_sequence<int, Vec<A>::width>());
}

template <int step, int... I, class A>
FANANO_FN Vec<A> turned(Vec<A> a, std::integer_sequence<int, I...>) {
  return {__builtin_shufflevector(a.v, a.v, ((I + step) % Vec<A>::width)...)};
}

// Every 16 bytes become the sum of all of them.
template <class A, int step = Vec<A>::width / 2> FANANO_FN Vec<A> add_blocks(Vec<A> a) {
  if constexpr (step >= lanes_of_16_bytes<A>)
    return add_blocks<A, step / 2>(
        a + turned<step>(a, std::make_integer_sequence<int, Vec<A>::width>()));
  else
    return a;
}

template <class A> FANANO_FN void store_block(Vec<A> a, A* to) {
  for (int i = 0; i < lanes_of_16_bytes<A>; ++i) to[i] = a.v[i];
}

// The lanes' sum, in the order in which dots() adds them.
template <class A> FANANO_FN A sum_of_lanes(Vec<A> a) {
  Vec<A> x = add_halves(a, a);
  if constexpr (lanes_of_16_bytes<A> == 4) x = add_halves(x, x);
  return add_blocks(x).v[0];
}

// ---- score --------------------------------------------------------------------------------------

// s[r][j] for R rows of q, dim apart, and the keys [j, j + 4); those from n on are the last one
// again. Two keys at a time, for the registers; each sum is one chain a lane, then the lanes.
template <int R, class A, class T>
FANANO_FN void dots(const A* q, int64_t dim, Operand<T> k, int64_t j, int64_t n, A* s) {
  Vec<A> part[2][R];
#pragma GCC unroll 2
  for (int pair = 0; pair < 2; ++pair) {
    const T* x = k.data + clamp(j + pair, 0, n - 1) * k.row;
    const T* y = k.data + clamp(j + pair + 2, 0, n - 1) * k.row;
    Vec<A> a[R], b[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) a[r] = b[r] = Vec<A>::all(0);
#pragma GCC unroll 2
    for (int64_t d = 0; d < dim; d += Vec<A>::width) {
      Vec<A> left = load_wide(x + d), right = load_wide(y + d);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        Vec<A> row = Vec<A>::load(q + r * dim + d);
        a[r] = fma(row, left, a[r]);
        b[r] = fma(row, right, b[r]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) part[pair][r] = add_halves(a[r], b[r]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    A* to = s + r * decode_keys + j;
    if constexpr (lanes_of_16_bytes<A> == 4) {
      store_block(add_blocks(add_halves(part[0][r], part[1][r])), to);
    } else {
      Vec<A> even = add_blocks(part[0][r]), odd = add_blocks(part[1][r]);
      to[0] = even.v[0], to[1] = odd.v[0], to[2] = even.v[1], to[3] = odd.v[1];
    }
  }
}

// ---- accumulate ---------------------------------------------------------------------------------

// o[r] = o[r] alpha[r] + sum over j < n of p[r][j] v[j], for R rows and C vectors of columns. As in
// tile.hpp, the tile's sum starts at zero and joins o at its end.
template <int R, int C, class A, class T>
FANANO_FN void sums(const A* p, Operand<T> v, int64_t n, int64_t dim, const A* alpha, A* o,
                    Ahead& ahead) {
  constexpr int w = Vec<A>::width;
  Vec<A> c[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int i = 0; i < C; ++i) c[r][i] = Vec<A>::all(0);
  auto add = [&](int64_t j) __attribute__((always_inline)) {
    Vec<A> x[C];
#pragma GCC unroll 8
    for (int i = 0; i < C; ++i) x[i] = load_wide(v.data + j * v.row + i * w);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      Vec<A> weight = Vec<A>::all(p[r * decode_keys + j]);
#pragma GCC unroll 8
      for (int i = 0; i < C; ++i) c[r][i] = fma(x[i], weight, c[r][i]);
    }
  };
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) {
    ahead.ask(4 * C * w * int64_t(sizeof(T)));
    add(j), add(j + 1), add(j + 2), add(j + 3);
  }
  for (; j < n; ++j) add(j);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int i = 0; i < C; ++i) {
      A* to = o + r * dim + i * w;
      fma(Vec<A>::load(to), Vec<A>::all(alpha[r]), c[r][i]).store(to);
    }
}

// All columns of R rows.
template <int R, class A, class T>
FANANO_FN void sums(const A* p, Operand<T> v, int64_t n, int64_t dim, const A* alpha, A* o,
                    Ahead& ahead) {
  constexpr int vectors = decode_columns / R > 8 ? 8 : decode_columns / R;
  in_groups<vectors>(dim / Vec<A>::width, [&]<int C>(int64_t first) {
    int64_t d = first * Vec<A>::width;
    sums<R, C>(p, Operand<T>{v.data + d, v.row}, n, dim, alpha, o + d, ahead);
  });
}

}  // namespace fanano::FANANO_ISA
