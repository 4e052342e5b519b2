// Sums over query rows, for each key: dk += dS^T q and dv += P^T dout. Lanes are columns here; the
// weights, P or dS of a strip, stand as [key][row] and are read by broadcast, or as tiles.
#pragma once

#include "block.hpp"
#include "tile.hpp"

namespace fanano::FANANO_ISA {

// The rows of a strip by panels of columns: [panel][row][column], a panel as wide as a strip, so
// that a panel of a block of rows stays in the L1 cache whatever their stride is. Zeros fill it up.
template <class A> FANANO_FN int64_t panels_size(int64_t dim) {
  return round_up(dim, strip_rows<A>) * strip_rows<A>;
}

template <class T, class A>
void load_panels(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim, A* panels) {
  constexpr int strip = strip_rows<A>;
  for (int64_t d = 0; d < dim; d += strip)
    for (int64_t i = 0; i < strip; ++i, panels += strip) {
      int64_t here = i < n ? clamp(dim - d, 0, strip) : 0;
      if (here) widen(x + i * row + d * column, column, panels, here);
      for (int64_t k = here; k < strip; ++k) panels[k] = 0;
    }
}

// Pairs are of neighbouring rows: store(first, second, to) makes them of a vector's numbers of
// each.
template <class T, class F>
FANANO_FN void load_pairs_of_rows(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                                  bfloat16* panels, F store) {
  constexpr int strip = strip_rows<float>;
  for (int64_t d = 0; d < dim; d += strip)
    for (int64_t i = 0; i < strip; i += 2, panels += 2 * strip) {
      T rows[2][strip] = {};
      for (int64_t k = i; k < i + 2 && k < n; ++k)
        copy_terms(x + k * row + d * column, column, rows[k - i], clamp(dim - d, 0, strip));
      for (int k = 0; k < strip; k += Pairs::width)
        store(rows[0] + k, rows[1] + k, reinterpret_cast<uint32_t*>(panels) + k);
    }
}

inline void load_panels(const bfloat16* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                        bfloat16* panels) {
  load_pairs_of_rows(x, row, column, n, dim, panels, [](auto first, auto second, uint32_t* to) {
    joined(load_brain(first), load_brain(second)).store(to);
  });
}

#ifdef FANANO_TILES

// In parts, each behind all panels of the last.
inline void load_panels(const float16* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                        bfloat16* panels) {
  constexpr int N = parts<float16, bfloat16>;
  const int64_t part = panels_size<float>(dim) / 2;
  load_pairs_of_rows(x, row, column, n, dim, panels, [&](auto first, auto second, uint32_t* to) {
    auto one = Parts<N>::template of<true>(load_wide(first));
    auto other = Parts<N>::template of<true>(load_wide(second));
    for (int k = 0; k < N; ++k) joined(one.part[k], other.part[k]).store(to + k * part);
  });
}

#endif

FANANO_FN bool is_finite(auto x) { return number(x) - number(x) == 0; }

// Panels have zeros for numbers that are not finite: 0 times those is NaN, and a row that does not
// see a key must not reach it. add_broken() adds what was left out; returns the rows that need it.
template <class A, class T, class E>
uint64_t load_finite_panels(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                            E* panels) {
  constexpr int strip = strip_rows<A>;
  load_panels(x, row, column, n, dim, panels);
  int64_t size = panels_size<A>(dim);
  if (finite(Operand<E>{panels, strip}, size / strip, strip)) return 0;
  uint64_t broken = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t d = 0; d < dim; ++d)
      if (!is_finite(x[i * row + d * column])) broken |= uint64_t(1) << i;
  for (int64_t i = 0; i < size; ++i)
    if (!is_finite(panels[i])) assign(panels[i], 0);
  return broken;
}

// sums[j] += what panels left out, times its weight for the keys that see it.
template <class A, class T, class E>
void add_broken(uint64_t broken, const T* x, int64_t row, int64_t column, int64_t keys, int64_t dim,
                const E* weights, const Visible<A>& see, A* sums, int64_t sums_row) {
  for (int64_t i = 0; i < strip_rows<A>; ++i) {
    if (!(broken >> i & 1)) continue;
    for (int64_t j = 0; j < keys; ++j) {
      if (!see.whole && !(see.rows[j] >> i & 1)) continue;
      for (int64_t d = 0; d < dim; ++d)
        if (T y = x[i * row + d * column]; !is_finite(y))
          sums[j * sums_row + d] += number(weights[j * strip_rows<A> + i]) * number(y);
    }
  }
}

// Rows of a strip, and their weights for the first keys of a tile; the rest weighs nothing, and
// only of those that are summed together with the last one the zeros are there.
template <class E> struct WeightedRows {
  const E *weights, *panels;
  int64_t count, keys;
};

// Makes them.
template <class A, class E> FANANO_FN void end_weights(E* weights, int64_t keys, int64_t n) {
  int64_t end = tiled<E> ? round_up(keys, at_once<E>) : clamp(keys + tile_sizes.group - 1, 0, n);
  for (int64_t i = keys * strip_rows<A>; i < end * strip_rows<A>; ++i) assign(weights[i], 0);
}

// Strips that pass the keys together. Products by tiles are fast enough for what is done once for
// each pass to show.
template <class A, class E>
inline constexpr int64_t pass_strips = (tiled<E> ? 8 : 4) * block_rows<A> / strip_rows<A>;

// Strips whose rows are one chain of the sums of a tile: those of a block; of a pass where products
// are by tiles, for such a sum comes and goes in the time of several products.
template <class A, class E>
inline constexpr int64_t chain_strips =
    tiled<E> ? pass_strips<A, E> : block_rows<A> / strip_rows<A>;

// Those that see anything of a tile; parts of panels are so far apart.
template <class A, class E, int Parts = 1> struct WeightedBlock {
  WeightedRows<E> strips[chain_strips<A, E>];
  int64_t count = 0, part;
  explicit WeightedBlock(int64_t part) : part(part) {}
  void add(const WeightedRows<E>& rows) { strips[count++] = rows; }
};

// sums[j] += the rows times their weights for key j, for n keys and V vectors of columns. All rows
// are summed in one chain, which joins what is there at its end.
template <int V, class A, class E>
void add_columns(const WeightedBlock<A, E>& block, int64_t panel, int64_t n, A* sums, int64_t row) {
  in_groups<tile_sizes.group>(n, [&]<int R>(int64_t j) {
    Strip<A, V> c[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) c[r] = Strip<A, V>::all(0);
    for (int64_t i = 0; i < block.count; ++i) {
      const WeightedRows<E>& x = block.strips[i];
      if (x.keys <= j) continue;
      multiply_more<R>(c, x.panels + panel, x.weights + j * strip_rows<A>, strip_rows<A>,
                       together<E>, round_up(x.count, together<E>) / together<E>);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      A* to = sums + (j + r) * row;
      (Strip<A, V>::load(to) + c[r]).store(to);
    }
  });
}

// As many vectors as there are columns left.
template <int V, class A, class E>
void add_rest(int64_t vectors, const WeightedBlock<A, E>& block, int64_t panel, int64_t n, A* sums,
              int64_t row) {
  if (vectors == V) return add_columns<V>(block, panel, n, sums, row);
  if constexpr (V > 1) add_rest<V - 1>(vectors, block, panel, n, sums, row);
}

// For all columns. `row` is the stride of sums, a multiple of the width.
template <class A, class E>
  requires(!tiled<E>)
void add_rows(const WeightedBlock<A, E>& block, int64_t n, int64_t dim, A* sums, int64_t row) {
  constexpr int w = Vec<A>::width, strip = strip_rows<A>;
  for (int64_t d = 0; d < dim; d += strip) {
    int64_t vectors = round_up(dim - d, w) / w;
    add_rest<M>(vectors < M ? vectors : M, block, d * strip, n, sums + d, row);
  }
}

#ifdef FANANO_TILES

// The same by tiles.
template <int Parts>
void add_rows(const WeightedBlock<float, bfloat16, Parts>& block, int64_t n, int64_t dim,
              float* sums, int64_t row) {
  constexpr int strip = strip_rows<float>, columns = 2 * tiles::side;
  alignas(64) float c[2 * tiles::side * columns];
  for (int64_t d = 0; d < dim; d += columns)
    in_groups<2>(round_up(n, tiles::side) / tiles::side, [&]<int R>(int64_t group) {
      int64_t j = group * tiles::side, panel = d / strip * strip * strip + d % strip * 2;
      tiles::zero_sums<R>();
      for (int64_t i = 0; i < block.count; ++i) {
        const WeightedRows<bfloat16>& x = block.strips[i];
        if (x.keys <= j) continue;
        tiles::add<R, tiles::products<Parts>>(x.weights + j * strip, strip, x.panels + panel,
                                              x.count, tile_keys * strip, block.part);
      }
      tiles::store_sums<R>(c, columns * int64_t(sizeof *c));
      for (int64_t r = 0; r < R * tiles::side && j + r < n; ++r)
        for (int64_t k = 0; k < columns && d + k < row; k += Vec<float>::width) {
          float* to = sums + (j + r) * row + d + k;
          (Vec<float>::load(to) + Vec<float>::load(c + r * columns + k)).store(to);
        }
    });
}

#endif

// One sum of dk and dv of a key head, in the accumulator's type; rows are filled up to whole
// vectors.
template <class A> struct KeySums {
  A *dk = nullptr, *dv = nullptr;
  int64_t dk_row = 0, dv_row = 0, keys = 0;

  KeySums() = default;
  KeySums(Arena& arena, const Shape& s)
      : dk_row(round_up(s.dim, Vec<A>::width)), dv_row(round_up(s.value_dim, Vec<A>::width)),
        keys(s.keys) {
    dk = arena.take<A>(keys * dk_row), dv = arena.take<A>(keys * dv_row);
  }

  // All of f(x[at], y[at]), a vector at a time, for these keys.
  template <class F> void combine(const KeySums& other, Range range, F f) const {
    for (int64_t i = range.begin * dk_row; i < range.end * dk_row; i += Vec<A>::width)
      f(dk + i, other.dk + i);
    for (int64_t i = range.begin * dv_row; i < range.end * dv_row; i += Vec<A>::width)
      f(dv + i, other.dv + i);
  }
  void clear() const {
    combine(*this, {0, keys}, [](A* x, A*) { Vec<A>::all(0).store(x); });
  }
  void add(const KeySums& other, Range range) const {
    combine(other, range, [](A* x, A* y) { (Vec<A>::load(x) + Vec<A>::load(y)).store(x); });
  }
};

}  // namespace fanano::FANANO_ISA
