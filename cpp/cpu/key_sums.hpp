// Sums over query rows, for each key: dk += dS^T q and dv += P^T dout. Lanes are columns here; the
// weights, P or dS of a strip, stand as [key][row] and are read by broadcast.
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

// Rows of a strip, and their weights for the first keys of a tile; the rest weighs nothing, and
// only of those that the last one may share a group with the zeros are there.
template <class A> struct WeightedRows {
  const A *weights, *panels;
  int64_t count, keys;
  const Visible<A>* see;
};

// Makes them.
template <class A> FANANO_FN void end_weights(A* weights, int64_t keys, int64_t n) {
  int64_t end = clamp(keys + tile_sizes.group - 1, 0, n);
  for (int64_t i = keys * strip_rows<A>; i < end * strip_rows<A>; ++i) weights[i] = 0;
}

// The strips of a block that see anything of a tile.
template <class A> struct WeightedBlock {
  WeightedRows<A> strips[block_rows<A> / strip_rows<A>];
  int64_t count = 0;
  void add(const WeightedRows<A>& rows) { strips[count++] = rows; }
};

// sums[j] += the rows times their weights for key j, for n keys and V vectors of columns. A block's
// rows are summed in one chain, which joins what is there at its end.
template <int V, class A>
void add_columns(const WeightedBlock<A>& block, int64_t panel, int64_t n, A* sums, int64_t row) {
  in_groups<tile_sizes.group>(n, [&]<int R>(int64_t j) {
    Strip<A, V> c[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) c[r] = Strip<A, V>::all(0);
    for (int64_t i = 0; i < block.count; ++i) {
      const WeightedRows<A>& x = block.strips[i];
      if (x.keys <= j) continue;
      multiply_more<R>(c, x.panels + panel, x.weights + j * strip_rows<A>, strip_rows<A>, 1,
                       x.count);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      A* to = sums + (j + r) * row;
      (Strip<A, V>::load(to) + c[r]).store(to);
    }
  });
}

// As many vectors as there are columns left.
template <int V, class A>
void add_rest(int64_t vectors, const WeightedBlock<A>& block, int64_t panel, int64_t n, A* sums,
              int64_t row) {
  if (vectors == V) return add_columns<V>(block, panel, n, sums, row);
  if constexpr (V > 1) add_rest<V - 1>(vectors, block, panel, n, sums, row);
}

// For all columns. `row` is the stride of sums, a multiple of the width.
template <class A>
void add_rows(const WeightedBlock<A>& block, int64_t n, int64_t dim, A* sums, int64_t row) {
  constexpr int w = Vec<A>::width, strip = strip_rows<A>;
  for (int64_t d = 0; d < dim; d += strip) {
    int64_t vectors = round_up(dim - d, w) / w;
    add_rest<M>(vectors < M ? vectors : M, block, d * strip, n, sums + d, row);
  }
}

// The same where some numbers of the rows are not finite: a row that does not see a key is left
// out of its sum, for 0 times NaN is NaN. Else the same numbers are added in the same order.
template <class A>
void add_seen_rows(const WeightedBlock<A>& block, int64_t n, int64_t dim, A* sums, int64_t row) {
  constexpr int w = Vec<A>::width, strip = strip_rows<A>;
  for (int64_t j = 0; j < n; ++j)
    for (int64_t d = 0; d < dim; d += w) {
      Vec<A> c = Vec<A>::all(0);
      for (int64_t i = 0; i < block.count; ++i) {
        const WeightedRows<A>& x = block.strips[i];
        if (x.keys <= j) continue;
        const A* column = x.panels + d / strip * strip * strip + d % strip;
        uint64_t seen = x.see->whole ? ~uint64_t(0) : x.see->rows[j];
        for (int64_t k = 0; k < x.count; ++k)
          if (seen >> k & 1)
            c = fma(Vec<A>::load(column + k * strip), Vec<A>::all(x.weights[j * strip + k]), c);
      }
      A* to = sums + j * row + d;
      (Vec<A>::load(to) + c).store(to);
    }
}

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
