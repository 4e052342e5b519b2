// Values that products need care with: a NaN or an infinity that some row must not see, and numbers
// so small that an instruction takes their products for zeros (terms.hpp).
#pragma once

#include "tile.hpp"

namespace fanano::FANANO_ISA {

// Strips of sums that accumulate() needs room for, with care.
template <class E> inline constexpr int careful_strips = tiled<E> ? 3 : 1;

// Whether a tile has none of them.
template <class E> bool ordinary(Operand<E> v, int64_t n, int64_t dim) { return finite(v, n, dim); }

inline constexpr float tiny = 0x1p-100f;

inline bool ordinary(Operand<bfloat16> pairs, int64_t n, int64_t dim) {
  constexpr uint16_t smallest = __builtin_bit_cast(uint32_t, tiny) >> 16, infinite = 0x7f80;
  uint16_t most = 0, least = 0xffff;
  // Pairs of rows, or columns of pairs: what lies side by side.
  bool by_columns = pairs.row < pairs.column;
  int64_t lines = by_columns ? dim : (n + 1) / 2, line = by_columns ? pairs.column : pairs.row;
  for (int64_t i = 0; i < lines; ++i) {
    for (int64_t k = 0; k < (by_columns ? round_up(n, 2) : 2 * dim); ++k) {
      uint16_t size = pairs.data[i * line + k].bits & 0x7fff, but_zero = uint16_t(size - 1);
      most = size > most ? size : most;
      least = but_zero < least ? but_zero : least;
    }
  }
  return most < infinite && least >= smallest - 1;
}

// Term i of column d as the rows of vector m see it: 0 where they do not.
template <class A, class E>
FANANO_FN auto seen_terms(Operand<E> v, int64_t i, int64_t d, int64_t n, const Visible<A>& see,
                          int m) {
  using V = decltype(Terms<E>::all(v.data));
  auto rows = [&](int64_t j) {
    return j >= n ? 0 : see.whole ? ~uint64_t(0) : see.rows[j] >> (m * Vec<A>::width);
  };
  V x = Terms<E>::all(v.data + i * v.row + d * v.column), none{};
  if constexpr (together<E> == 1) {
    return select_bits(rows(i), x, none);
  } else {
    V first = select_bits(rows(2 * i), V{x.v & 0xffff}, none);
    V second = select_bits(rows(2 * i + 1), V{x.v & 0xffff0000}, none);
    return V{first.v | second.v};
  }
}

// The weights of the rows of vector m.
template <class A, class E> FANANO_FN auto weights_of(const E* p, int64_t i, int m) {
  return Terms<E>::load(p + (i * M + m) * Vec<A>::width * together<E>);
}

template <class A> FANANO_FN bool any_nan(Vec<A> x) {
  bool any = false;
  for (int i = 0; i < Vec<A>::width; ++i) any |= x.v[i] != x.v[i];
  return any;
}

// A sum of pairs that is small may lack products that were taken for zeros: where a row gives
// weight to a tiny value, it is made again from numbers.
template <class A>
Vec<A> with_tiny(Vec<A> c, const bfloat16* p, Operand<bfloat16> v, int64_t n, int64_t d,
                 const Visible<A>& see, int m) {
  const Vec<A> zero = Vec<A>::all(0), limit = Vec<A>::all(16 * tiny);
  Vec<A> again = zero, is_tiny = zero;
  for (int64_t i = 0; 2 * i < n; ++i) {
    Pairs weight = weights_of<A>(p, i, m), value = seen_terms(v, i, d, n, see, m);
    auto add = [&](Vec<A> w, Vec<A> x) {
      again = fma(w, x, again);
      Vec<A> size = max(x, zero - x);
      Vec<A> counts = select_equal(w, zero, zero, select_equal(x, zero, zero, Vec<A>::all(1)));
      is_tiny = select_less(size, Vec<A>::all(tiny), max(is_tiny, counts), is_tiny);
    };
    add(first_of(weight), first_of(value)), add(second_of(weight), second_of(value));
  }
  again = select_equal(is_tiny, zero, c, again);
  return select_less(max(c, zero - c), limit, again, c);
}

// o = o * alpha + v p, with care. A row's weights of what it must not see are exactly 0, but 0
// times a NaN or an infinity is NaN: where a sum is not finite it is made again, by the same steps,
// with the values selected row by row. block holds a strip of sums, dim columns.
template <class A, class E>
void accumulate(const E* p, Operand<E> v, int64_t n, int64_t dim, const Strip<A>& alpha, A* o,
                const Visible<A>& see, A* block) {
  for (int64_t i = 0; i < dim * strip_rows<A>; ++i) block[i] = 0;
  accumulate(p, v, n, dim, Strip<A>::all(1), block);
  for (int64_t d = 0; d < dim; ++d) {
    for (int m = 0; m < M; ++m) {
      int64_t at = d * strip_rows<A> + m * Vec<A>::width;
      Vec<A> c = Vec<A>::load(block + at), none = c - c;  // NaN where c is not finite
      if (any_nan(none)) {
        Vec<A> again = Vec<A>::all(0);
        for (int64_t i = 0; i * together<E> < n; ++i)
          again = fma(weights_of<A>(p, i, m), seen_terms(v, i, d, n, see, m), again);
        c = select_equal(none, Vec<A>::all(0), c, again);
      }
      if constexpr (together<E> == 2) c = with_tiny(c, p, v, n, d, see, m);
      fma(Vec<A>::load(o + at), alpha.v[m], c).store(o + at);
    }
  }
}

#ifdef __AMX_BF16__

// By the same steps is by tiles here: values that are not finite are left out, and then added where
// they are seen. block holds the tile's sums, and v without them.
template <class A>
void accumulate(const bfloat16* p, Operand<bfloat16> v, int64_t n, int64_t dim,
                const Strip<A>& alpha, A* o, const Visible<A>& see, A* block) {
  static_assert(tile_keys * sizeof(bfloat16) <= strip_rows<A> * sizeof(A));  // of each part
  const Vec<A> zero = Vec<A>::all(0);
  const int64_t columns = round_up(dim, tiles::side), size = columns * strip_rows<A>;
  auto finite = reinterpret_cast<bfloat16*>(block + size);
  for (int64_t i = 0; i < columns * v.column; ++i)
    finite[i] = (v.data[i].bits & 0x7f80) == 0x7f80 ? bfloat16{0} : v.data[i];
  for (int64_t i = 0; i < size; ++i) block[i] = 0;
  accumulate(p, {finite, v.row, v.column, v.part}, n, dim, Strip<A>::all(1), block);

  for (int64_t d = 0; d < dim; ++d) {
    bool plain = ordinary({v.data + d * v.column, v.row, v.column}, n, 1);
    for (int m = 0; m < M; ++m) {
      int64_t at = d * strip_rows<A> + m * Vec<A>::width;
      Vec<A> c = Vec<A>::load(block + at);
      for (int64_t i = 0; !plain && 2 * i < n; ++i) {
        Pairs weight = weights_of<A>(p, i, m), value = seen_terms(v, i, d, n, see, m);
        auto add = [&](Vec<A> w, Vec<A> x) {
          c = select_equal(x - x, zero, c, fma(w, x, c));  // NaN where x is not finite
        };
        add(first_of(weight), first_of(value)), add(second_of(weight), second_of(value));
      }
      if (!plain && !v.part) c = with_tiny(c, p, v, n, d, see, m);  // no float16 is tiny
      fma(Vec<A>::load(o + at), alpha.v[m], c).store(o + at);
    }
  }
}

#endif

}  // namespace fanano::FANANO_ISA
