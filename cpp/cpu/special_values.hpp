// Values that products need care with: a NaN or an infinity that some row must not see, and numbers
// so small that an instruction takes their products for zeros (terms.hpp).
#pragma once

#include "tile.hpp"

namespace fanano::FANANO_ISA {

// Strips that accumulate() needs room for, with care: of sums, and of tiles' values.
template <class T, class E> inline constexpr int careful_strips = tiled<E> ? 1 + parts<T, E> : 1;

// Whether a tile has none of them.
template <class E> bool ordinary(Operand<E> v, int64_t n, int64_t dim) { return finite(v, n, dim); }

// Values below this may lose products, or parts (of whole ones, which have three), that a sum needs
// if it is smaller than 16 times as much.
inline constexpr float tiny = 0x1p-100f, tiny_whole = 0x1p-84f;

FANANO_FN uint16_t word_of(bfloat16 x) { return x.bits; }
FANANO_FN uint32_t word_of(float x) { return __builtin_bit_cast(uint32_t, x); }

template <class T>
bool ordinary(const T* x, int64_t rows, int64_t row, int64_t columns, int64_t column) {
  using Word = decltype(word_of(*x));
  constexpr int shift = 32 - 8 * int(sizeof(Word));
  constexpr float least_value = shift ? tiny : tiny_whole;
  constexpr Word smallest = __builtin_bit_cast(uint32_t, least_value) >> shift;
  constexpr Word infinite = 0x7f800000u >> shift, sign = Word(0x80000000u >> shift);
  Word most = 0, least = Word(-1);
  auto look = [&](auto step) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < columns; ++k) {
        Word size = Word(word_of(x[i * row + k * step]) & ~sign);
        Word but_zero = Word(size - 1);
        most = size > most ? size : most;
        least = but_zero < least ? but_zero : least;
      }
  };
  if (column == 1)
    look(std::integral_constant<int, 1>());  // by vectors
  else
    look(column);
  return most < infinite && least >= smallest - 1;
}

inline bool ordinary(Operand<bfloat16> v, int64_t n, int64_t dim) {
  if (v.numbers) return ordinary(v.numbers, n, v.numbers_row, dim, v.numbers_column);
  // Pairs of rows, or columns of pairs: what lies side by side.
  if (v.row < v.column) return ordinary(v.data, dim, v.column, round_up(n, 2), 1);
  return ordinary(v.data, (n + 1) / 2, v.row, 2 * dim, 1);
}

// Column d alone.
template <class E> FANANO_FN Operand<E> column_of(Operand<E> v, int64_t d) {
  v.data += d * v.column;
  if (v.numbers) v.numbers += d * v.numbers_column;
  return v;
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
  const float small = v.numbers ? tiny_whole : tiny;
  const Vec<A> zero = Vec<A>::all(0), limit = Vec<A>::all(16 * small);
  if (!any_less(max(c, zero - c), limit)) return c;
  Vec<A> again = zero, is_tiny = zero;
  for (int64_t i = 0; 2 * i < n; ++i) {
    auto add = [&](Vec<A> w, Vec<A> x) {
      again = fma(w, x, again);
      Vec<A> size = max(x, zero - x);
      Vec<A> counts = select_equal(w, zero, zero, select_equal(x, zero, zero, Vec<A>::all(1)));
      is_tiny = select_less(size, Vec<A>::all(small), max(is_tiny, counts), is_tiny);
    };
    Vec<A> weights[2] = {zero, zero}, values[2];
    for (int k = 0; k < v.parts; ++k) {
      Pairs weight = weights_of<A>(p + k * tile_keys * strip_rows<A>, i, m);
      weights[0] = weights[0] + first_of(weight), weights[1] = weights[1] + second_of(weight);
    }
    if (v.numbers) {
      const Operand<A> whole{v.numbers, v.numbers_row, v.numbers_column};
      for (int64_t k : {0, 1})
        values[k] = 2 * i + k < n ? seen_terms(whole, 2 * i + k, d, n, see, m) : zero;
    } else {
      Pairs value = seen_terms(v, i, d, n, see, m);
      values[0] = first_of(value), values[1] = second_of(value);
    }
    add(weights[0], values[0]), add(weights[1], values[1]);
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

#ifdef FANANO_TILES

// By the same steps is by tiles here: values that are not finite are left out, and then added where
// they are seen. block holds the tile's sums, and v without them.
template <class A>
void accumulate(const bfloat16* p, Operand<bfloat16> v, int64_t n, int64_t dim,
                const Strip<A>& alpha, A* o, const Visible<A>& see, A* block) {
  static_assert(tile_keys * sizeof(bfloat16) <= strip_rows<A> * sizeof(A));
  const Vec<A> zero = Vec<A>::all(0);
  const int64_t columns = round_up(dim, tiles::side), size = columns * strip_rows<A>;
  auto finite = reinterpret_cast<bfloat16*>(block + size);
  for (int64_t i = 0; i < columns * v.column; ++i)
    finite[i] = (v.data[i].bits & 0x7f80) == 0x7f80 ? bfloat16{0} : v.data[i];
  for (int64_t i = 0; i < size; ++i) block[i] = 0;
  accumulate(p, {finite, v.row, v.column, v.part, v.parts}, n, dim, Strip<A>::all(1), block);

  for (int64_t d = 0; d < dim; ++d) {
    bool plain = ordinary(column_of(v, d), n, 1);
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
      if (!plain && (v.parts == 1 || v.numbers)) c = with_tiny(c, p, v, n, d, see, m);
      fma(Vec<A>::load(o + at), alpha.v[m], c).store(o + at);
    }
  }
}

#endif

}  // namespace fanano::FANANO_ISA
