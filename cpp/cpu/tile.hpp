// The tile verbs of the CPU kernels: load, score, accumulate, finish; mask is in logits.hpp, absorb
// in absorb.hpp.
//
// Lanes are query rows: S^T = K Q^T and O^T += V^T P^T. K and V are read by broadcast, straight
// from row-major memory; row maxima and sums are vertical, and no reduction ever crosses lanes. A
// strip is tile_sizes.vectors registers of query rows; q, s, p and o are stored strip by strip as
// [column][row], and only q and o are transposed, once per strip.
#pragma once

#include <algorithm>
#include <utility>

#include "terms.hpp"
#include "visible.hpp"

namespace fanano::FANANO_ISA {

inline constexpr int M = tile_sizes.vectors;

// One value for each query row of a strip; of fewer vectors where it holds columns.
template <class A, int V = M> struct Strip {
  Vec<A> v[V];
  static FANANO_FN Strip all(A x) {
    Strip s;
#pragma GCC unroll 4
    for (int m = 0; m < V; ++m) s.v[m] = Vec<A>::all(x);
    return s;
  }
  static FANANO_FN Strip load(const A* p) {
    Strip s;
#pragma GCC unroll 4
    for (int m = 0; m < V; ++m) s.v[m] = Vec<A>::load(p + m * Vec<A>::width);
    return s;
  }
  FANANO_FN void store(A* p) const {
#pragma GCC unroll 4
    for (int m = 0; m < V; ++m) v[m].store(p + m * Vec<A>::width);
  }
};

template <class A, int V>
FANANO_FN Strip<A, V> operator+(const Strip<A, V>& a, const Strip<A, V>& b) {
  Strip<A, V> sum;
#pragma GCC unroll 4
  for (int m = 0; m < V; ++m) sum.v[m] = a.v[m] + b.v[m];
  return sum;
}

// Keys of a tile, row by row: columns are contiguous. Or values; where terms are pairs, those of
// two neighbouring rows stand together, column by column.
template <class E> struct Operand {
  const E* data;
  int64_t row;  // stride, of rows or pairs of them
  int64_t column = together<E>;
  int64_t part = 0;  // how far parts of numbers are apart (amx_parts.hpp)
  int parts = 1;
  const float* factors = nullptr;  // of each row, for its scores; null: 1
  const float* numbers = nullptr;  // where they stand whole, if parts of tiny ones are none
  int64_t numbers_row = 0, numbers_column = 0;
  const E* panels = nullptr;  // the numbers as accumulate() likes to find them; null: in `data`
  int64_t panel_rows = 0;
};

// ---- load ---------------------------------------------------------------------------------------

// Rows [0, n) of k or v: in place where the kernel can read them, else converted. Where terms are
// pairs and the number of columns is odd, a zero follows.
template <class E, class T>
Operand<E> load(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim, E* buffer) {
  int64_t padded = round_up(dim, together<E>);
  if constexpr (std::is_same_v<T, E>)
    if (column == 1 && padded == dim) return {x, row};
  for (int64_t j = 0; j < n; ++j) {
    copy_terms(x + j * row, column, buffer + j * padded, dim);
    if (padded > dim) assign(buffer[j * padded + dim], 0);
  }
  return {buffer, padded};
}

// The same for values.
template <class E, class T>
Operand<E> load_values(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim, E* buffer) {
  return load(x, row, column, n, dim, buffer);
}

// As pairs; after an odd number of rows, zeros are the last one's partners.
template <class E>
  requires(together<E> == 2)
Operand<E> load_values(const E* x, int64_t row, int64_t column, int64_t n, int64_t dim, E* buffer) {
  for (int64_t j = 0; j < n; j += 2) {
    const E *first = x + j * row, *second = first + row;
    E* to = buffer + j * dim;
    if (j + 1 == n)
      for (int64_t d = 0; d < dim; ++d) to[2 * d] = first[d * column], to[2 * d + 1] = {0};
    else if (column == 1)
      for (int64_t d = 0; d < dim; ++d) to[2 * d] = first[d], to[2 * d + 1] = second[d];
    else
      for (int64_t d = 0; d < dim; ++d)
        to[2 * d] = first[d * column], to[2 * d + 1] = second[d * column];
  }
  return {buffer, 2 * dim};
}

// Strips for whose products it pays to copy a tile.
inline constexpr int64_t many_strips = 4;

// Rows in place may lie far apart, other heads between them: in pages of their own, and in few sets
// of the caches. buffer is the one that load() had: what stands there is near already.
template <class E> void gather(Operand<E>& x, int64_t n, int64_t dim, E* buffer) {
  if (tiled<E> || x.data == buffer || x.row == dim) return;
  for (int64_t j = 0; j < n; ++j) std::copy_n(x.data + j * x.row, dim, buffer + j * dim);
  x.data = buffer, x.row = dim;
}

// Whether every number of a tile is finite.
template <class T> bool finite(Operand<T> x, int64_t n, int64_t dim) {
  using A = accumulator_t<T>;
  constexpr int w = Vec<A>::width;
  Vec<A> sum = Vec<A>::all(0);  // inf - inf and NaN - NaN are NaN, all else is 0
  bool tail = true;
  for (int64_t j = 0; j < n; ++j) {
    const T* row = x.data + j * x.row;
    int64_t d = 0;
    for (; d + w <= dim; d += w) sum = sum + (load_wide(row + d) - load_wide(row + d));
    for (; d < dim; ++d) tail &= number(row[d]) - number(row[d]) == 0;
  }
  for (int i = 0; i < w; ++i) tail &= sum.v[i] == 0;
  return tail;
}

template <int... I, class A>
FANANO_FN void interleave(Vec<A> a, Vec<A> b, Vec<A>& low, Vec<A>& high,
                          std::integer_sequence<int, I...>) {
  constexpr int w = Vec<A>::width;
  low.v = __builtin_shufflevector(a.v, b.v, (I / 2 + I % 2 * w)...);
  high.v = __builtin_shufflevector(a.v, b.v, (w / 2 + I / 2 + I % 2 * w)...);
}

// A square of numbers: interleaving the upper with the lower half log2(width) times transposes it.
template <class A> FANANO_FN void transpose(Vec<A> (&x)[Vec<A>::width]) {
  constexpr int w = Vec<A>::width;
#pragma GCC unroll 4
  for (int step = 1; step < w; step *= 2) {
    Vec<A> y[w];
#pragma GCC unroll 8
    for (int i = 0; i < w / 2; ++i)
      interleave(x[i], x[i + w / 2], y[2 * i], y[2 * i + 1], std::make_integer_sequence<int, w>());
#pragma GCC unroll 16
    for (int i = 0; i < w; ++i) x[i] = y[i];
  }
}

// Columns of a packed strip.
template <class A, class E> FANANO_FN int64_t packed_dim(int64_t dim) {
  return round_up(dim, Vec<A>::width * together<E>);
}

// What a strip of q, a tile of k, as rows and as values, take of memory, in numbers of E; those in
// parts have a factor for each row behind them.
template <class T, class E> FANANO_FN int64_t strip_size(int64_t dim) {
  using A = accumulator_t<T>;
  int64_t factors = parts<T, E> > 1 ? strip_rows<A> * int64_t(sizeof(float) / sizeof(E)) : 0;
  return parts<T, E> * packed_dim<A, E>(dim) * strip_rows<A> + factors;
}
template <class T, class E> FANANO_FN int64_t keys_size(int64_t dim) {
  int64_t factors = parts<T, E> > 1 ? tile_keys * int64_t(sizeof(float) / sizeof(E)) : 0;
  return parts<T, E> * tile_keys * round_up(dim, at_once<E>) + factors;
}
template <class T, class E> FANANO_FN int64_t values_size(int64_t dim) {
  return parts<T, E> * tile_keys * round_up(dim, Vec<accumulator_t<T>>::width);
}

// n rows (at most a strip) to [column][row]; missing rows become zeros. fill(i, to) writes the dim
// numbers of row i, map(x, m) changes them on their way into vector m. rows holds width x dim
// numbers, both that and strip with dim rounded up to the width.
template <class A, class F, class G>
FANANO_FN void pack(int64_t n, int64_t dim, F fill, G map, A* strip, A* rows) {
  constexpr int w = Vec<A>::width;
  int64_t padded = round_up(dim, w);
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    for (int i = 0; i < w; ++i) {
      bool there = m * w + i < n;
      if (there) fill(m * w + i, rows + i * padded);
      for (int64_t d = there ? dim : 0; d < padded; ++d) rows[i * padded + d] = 0;
    }
    for (int64_t d = 0; d < dim; d += w) {
      Vec<A> square[w];
#pragma GCC unroll 16
      for (int i = 0; i < w; ++i) square[i] = Vec<A>::load(rows + i * padded + d);
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < w; ++i) map(square[i], m).store(strip + (d + i) * strip_rows<A> + m * w);
    }
  }
}

template <class A, class T>
void pack(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim, A factor, A* strip,
          A* rows) {
  auto fill = [&](int64_t i, A* to) { widen(x + i * row, column, to, dim); };
  pack(n, dim, fill, [&](Vec<A> v, int) { return v * Vec<A>::all(factor); }, strip, rows);
}

// Pairs of neighbouring columns; a zero after an odd number of them.
template <class T>
void pack(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim, float factor,
          bfloat16* strip, bfloat16* rows) {
  auto fill = [&](int64_t i, uint32_t* pairs) {
    auto to = reinterpret_cast<bfloat16*>(pairs);
    if (factor == 1)
      copy_terms(x + i * row, column, to, dim);
    else
      for (int64_t d = 0; d < dim; ++d) assign(to[d], number(x[i * row + d * column]) * factor);
    if (dim % 2) assign(to[dim], 0);
  };
  pack(
      n, (dim + 1) / 2, fill, [](Pairs v, int) { return v; }, reinterpret_cast<uint32_t*>(strip),
      reinterpret_cast<uint32_t*>(rows));
}

// ---- the micro-kernel ---------------------------------------------------------------------------

// c[r] += sum over i < n of a[i] * b[r * row + i * step], summed in the order of i: R x V
// accumulators. a[i] is a strip of terms; so is n counted.
template <int R, class A, int V, class E>
FANANO_FN void multiply_more(Strip<A, V> (&c)[R], const E* a, const E* b, int64_t row, int64_t step,
                             int64_t n) {
  constexpr int lanes = Vec<A>::width * together<E>;
#pragma GCC unroll 4
  for (int64_t i = 0; i < n; ++i) {
    decltype(Terms<E>::load(a)) x[V];
#pragma GCC unroll 4
    for (int m = 0; m < V; ++m) x[m] = Terms<E>::load(a + (i * M + m) * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      auto y = Terms<E>::all(b + r * row + i * step);
#pragma GCC unroll 4
      for (int m = 0; m < V; ++m) c[r].v[m] = fma(x[m], y, c[r].v[m]);
    }
  }
}

// The same from zero.
template <int R, class A, class E>
FANANO_FN void multiply(Strip<A> (&c)[R], const E* a, const E* b, int64_t row, int64_t step,
                        int64_t n) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) c[r] = Strip<A>::all(0);
  multiply_more<R>(c, a, b, row, step, n);
}

// Calls f.template operator()<n>(first), for an n of at most R.
template <int R, class F> FANANO_FN void one_group(int64_t n, int64_t first, F f) {
  if (n == R) return f.template operator()<R>(first);
  if constexpr (R > 1) one_group<R - 1>(n, first, f);
}

// The same for groups of R from 0 to n. What is not a whole group is shared with the last one: a
// few accumulators alone would wait for one another.
template <int R, class F> FANANO_FN void in_groups(int64_t n, F f) {
  int64_t first = 0;
  for (; first + 2 * R <= n; first += R) f.template operator()<R>(first);
  int64_t left = n - first, half = left > R ? (left + 1) / 2 : left;
  if (half) one_group<R>(half, first, f);
  if (left > half) one_group<R>(left - half, first + half, f);
}

// ---- score --------------------------------------------------------------------------------------

// s = k q for n keys; returns the largest of each row (a NaN may or may not show in it). Long rows
// are summed in pieces: a chain of n sums is wrong by sqrt(n) rounding errors.
template <class A, class E> Strip<A> score(const E* q, Operand<E> k, int64_t n, int64_t dim, A* s) {
  constexpr int piece = score_columns * together<E>;
  dim = round_up(dim, together<E>);
  Strip<A> largest = Strip<A>::all(-infinity<A>);
  for (int64_t d = 0; d < dim; d += piece) {
    int64_t columns = dim - d < piece ? dim - d : piece;
    bool last = d + columns == dim;
    in_groups<tile_sizes.group>(n, [&]<int R>(int64_t j) {
      Strip<A> c[R];
      multiply<R>(c, q + d * strip_rows<A>, k.data + j * k.row + d, k.row, together<E>,
                  columns / together<E>);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        A* to = s + (j + r) * strip_rows<A>;
        if (d) c[r] = Strip<A>::load(to) + c[r];
        c[r].store(to);
      }
      if (!last) return;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) largest.v[m] = max(largest.v[m], c[r].v[m]);
    });
  }
  return largest;
}

// The same where nobody asks for the largest.
template <class A, class E> void multiply(const E* q, Operand<E> k, int64_t n, int64_t dim, A* s) {
  score(q, k, n, dim, s);
}

// ---- accumulate ---------------------------------------------------------------------------------

// gather() for values. Those of long rows are regrouped, each group of columns row by row: lines of
// a column would meet in few sets of the first-level cache. buffer is load_values()'s, panels as
// large.
template <class E> void gather_values(Operand<E>& v, int64_t n, int64_t dim, E* buffer, E* panels) {
  constexpr int64_t long_row = 512;  // bytes: an L1 of 32 KiB and 8 ways holds 64 such lines
  if (together<E> > 1 || dim * int64_t(sizeof(E)) < long_row) return gather(v, n, dim, buffer);
  v.panels = panels, v.panel_rows = n;
  in_groups<tile_sizes.group>(dim, [&]<int R>(int64_t d) {
    E* to = panels + d * n;
    for (int64_t j = 0; j < n; ++j, to += R)
      std::memcpy(to, v.data + j * v.row + d, R * sizeof *to);
  });
}

// o = o * alpha + c, one column.
template <class A> FANANO_FN void join(const Strip<A>& c, const Strip<A>& alpha, A* o) {
  Strip<A> sum = Strip<A>::load(o);
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) sum.v[m] = fma(sum.v[m], alpha.v[m], c.v[m]);
  sum.store(o);
}

// o = o * alpha + v p. The tile's sum starts at zero and joins o at its end: three times more exact
// than running on from o, and the rescaling is free.
template <class A, class E>
void accumulate(const E* p, Operand<E> v, int64_t n, int64_t dim, const Strip<A>& alpha, A* o) {
  int64_t steps = round_up(n, together<E>) / together<E>;
  in_groups<tile_sizes.group>(dim, [&]<int R>(int64_t d) {
    Strip<A> c[R];
    if (v.panels)
      multiply<R>(c, p, v.panels + d * v.panel_rows, 1, R, steps);
    else
      multiply<R>(c, p, v.data + d * together<E>, together<E>, v.row, steps);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) join(c[r], alpha, o + (d + r) * strip_rows<A>);
  });
}

}  // namespace fanano::FANANO_ISA

#ifdef FANANO_TILES
#include "amx.hpp"
#include "amx_parts.hpp"
#endif

namespace fanano::FANANO_ISA {

// ---- finish -------------------------------------------------------------------------------------

// A row's elements that are not finite; the others stay.
template <class A, class T> void replace_broken(const A* x, T* out, int64_t column, int64_t dim) {
  for (int64_t d = 0; d < dim; ++d) {
    auto before = number(out[d * column]);
    if (before - before != 0) assign(out[d * column], x[d]);
  }
}

// n rows of o times their factor to row-major memory: pack's way back, with the same sizes. With
// `only`, just what is not finite in the rows where that is not 0. Zeros are positive: whether a
// sum that vanished is -0 would tell which empty tiles its neighbours had visited.
template <class A, class T>
void unpack(const A* strip, const Strip<A>& factor, int64_t n, int64_t dim, T* out, int64_t row,
            int64_t column, A* rows, const A* only = nullptr) {
  constexpr int w = Vec<A>::width;
  int64_t padded = round_up(dim, w);
  for (int m = 0; m < M && m * w < n; ++m) {
    for (int64_t d = 0; d < dim; d += w) {
      Vec<A> square[w];
#pragma GCC unroll 16
      for (int i = 0; i < w; ++i)
        square[i] =
            fma(Vec<A>::load(strip + (d + i) * strip_rows<A> + m * w), factor.v[m], Vec<A>::all(0));
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < w; ++i) square[i].store(rows + i * padded + d);
    }
    for (int i = 0; i < w && m * w + i < n; ++i)
      if (!only)
        narrow(rows + i * padded, out + (m * w + i) * row, column, dim);
      else if (only[m * w + i] != 0)
        replace_broken(rows + i * padded, out + (m * w + i) * row, column, dim);
  }
}

}  // namespace fanano::FANANO_ISA
