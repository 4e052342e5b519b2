// The tile verbs of tile.hpp for bfloat16 by tile registers (AMX): an instruction multiplies 16
// rows of 32 numbers by 32 rows of 16, the latter as pairs, and adds to 16 x 16 floats.
//
// S^T = K Q^T takes keys as they stand in memory, O^T += V^T P^T needs v transposed; q and the
// weights are pairs by strips, as products of pairs take them. All tiles are of one size: what is
// not there is zeros. Of the eight registers, 0 to 3 hold sums, 4 and 5 the left factor's rows, 6
// and 7 the pairs. tile.hpp includes this where the instructions are.
#pragma once

#include <cstring>

namespace fanano::FANANO_ISA {

namespace tiles {

inline constexpr int64_t strip_bytes = strip_rows<float> * int64_t(sizeof(float));

// The sums are of R x 16 rows of the left factor, at most 2, by 32 columns.
template <int R> FANANO_FN void zero_sums() {
  zero<0>(), zero<1>();
  if constexpr (R == 2) zero<2>(), zero<3>();
}
template <int R> FANANO_FN void store_sums(float* to, int64_t stride) {
  store<0>(to, stride), store<1>(to + side, stride);
  if constexpr (R == 2) {
    to += side * stride / int64_t(sizeof *to);
    store<2>(to, stride), store<3>(to + side, stride);
  }
}

// sums += a b, 32 terms, of an a and a b that may be there already. Rows of a are `bytes` apart,
// those of b a strip of pairs.
template <int R, bool Load_a = true, bool Load_b = true>
FANANO_FN void add(const bfloat16* a, int64_t bytes, const bfloat16* b) {
  if constexpr (Load_a) load<4>(a, bytes);
  if constexpr (Load_b) load<6>(b, strip_bytes);
  multiply<0, 4, 6>();
  if constexpr (Load_b) load<7>(b + 2 * side, strip_bytes);
  multiply<1, 4, 7>();
  if constexpr (R == 2) {
    if constexpr (Load_a) load<5>(a + side * bytes / int64_t(sizeof *a), bytes);
    multiply<2, 5, 6>();
    multiply<3, 5, 7>();
  }
}

// Which parts of two factors are multiplied (amx_parts.hpp), in an order in which neighbours share
// one. The last, that of the largest, is summed when all others are: a sum is rounded by what it
// has come to.
struct Products {
  int count;
  struct { int a, b; } of[6];
};
template <int Parts> inline constexpr Products products{};
template <> inline constexpr Products products<1>{1, {{0, 0}}};
template <> inline constexpr Products products<2>{3, {{1, 0}, {0, 1}, {0, 0}}};
template <> inline constexpr Products products<3>{6, {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {}}};

// Scores of two parts take all products, and are exact but for their sums.
template <int Parts> inline constexpr Products score_products = products<Parts>;
template <> inline constexpr Products score_products<2>{4, {{1, 0}, {1, 1}, {0, 1}, {0, 0}}};

// sums += a b, for so many terms, of parts that are so far apart.
template <int R, Products P>
FANANO_FN void add(const bfloat16* a, int64_t row, const bfloat16* b, int64_t terms, int64_t a_part,
                   int64_t b_part) {
  constexpr int last = P.count - 1, step = deep * strip_rows<float>;
  const int64_t bytes = row * int64_t(sizeof *a), steps = round_up(terms, deep) / deep;
  for (int64_t i = 0; last && i < steps; ++i) {
    auto one = [&]<int I>() {
      constexpr auto now = P.of[I], before = P.of[I ? I - 1 : 0];
      add<R, !I || now.a != before.a, !I || now.b != before.b>(a + now.a * a_part + i * deep, bytes,
                                                               b + now.b * b_part + i * step);
    };
    [&]<int... I>(std::integer_sequence<int, I...>) {
      (one.template operator()<I>(), ...);
    }(std::make_integer_sequence<int, last>());
  }
  for (int64_t i = 0; i < steps; ++i) add<R>(a + i * deep, bytes, b + i * step);
}

// sums = a b, for all of a strip.
template <int R, Products P>
FANANO_FN void multiply_strip(const bfloat16* a, int64_t row, const bfloat16* b, int64_t terms,
                              float* sums, int64_t a_part, int64_t b_part) {
  static_assert(strip_rows<float> % (2 * side) == 0);
  for (int m = 0; m < strip_rows<float>; m += 2 * side) {
    zero_sums<R>();
    add<R, P>(a, row, b + 2 * m, terms, a_part, b_part);
    store_sums<R>(sums + m, strip_bytes);
  }
}

// f<parts>(), of numbers in so many.
template <class F> FANANO_FN void with_parts(int parts, F f) {
  if (parts == 1) return f.template operator()<1>();
  if (parts == 2) return f.template operator()<2>();
  f.template operator()<3>();
}

}  // namespace tiles

template <> struct Ready<bfloat16> : tiles::Session {};

// load: rows side by side, where no two of them are in each other's way in a cache, and zeros after
// a row and the last row: in the buffer, if they do not stand so already.
inline Operand<bfloat16> load(const bfloat16* x, int64_t row, int64_t column, int64_t n,
                              int64_t dim, bfloat16* buffer) {
  int64_t padded = round_up(dim, tiles::deep);
  bool aligned = reinterpret_cast<uintptr_t>(x) % (tiles::deep * sizeof *x) == 0;
  if (aligned && column == 1 && row == dim && padded == dim && n % tiles::side == 0)
    return {x, row};
  for (int64_t j = 0; j < n; ++j) {
    bfloat16* to = buffer + j * padded;
    copy_terms(x + j * row, column, to, dim);
    std::memset(to + dim, 0, size_t(padded - dim) * sizeof *to);
  }
  int64_t missing = round_up(n, tiles::side) - n;
  std::memset(buffer + n * padded, 0, size_t(missing * padded) * sizeof *buffer);
  return {buffer, padded};
}

// Transposed: of each column, the tile's keys side by side. 32 keys by 16 columns are a square of
// pairs.
template <class T, class F>
FANANO_FN void load_squares(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                            F store) {
  static_assert(tiles::side == Pairs::width && tiles::deep == 2 * Pairs::width);
  static_assert(tile_keys % tiles::deep == 0);
  for (int64_t d = 0; d < dim; d += tiles::side)
    for (int64_t j = 0; j < n; j += tiles::deep) {
      const T* from = x + j * row + d * column;
      if (column == 1 && d + tiles::side <= dim && j + tiles::deep <= n) {
        store(d, j, [&](int i) { return from + i * row; });
      } else {
        T some[tiles::deep][tiles::side] = {};
        for (int64_t i = 0; i < tiles::deep && j + i < n; ++i)
          copy_terms(from + i * row, column, some[i], clamp(dim - d, 0, tiles::side));
        store(d, j, [&](int i) { return some[i]; });
      }
    }
}

inline Operand<bfloat16> load_values(const bfloat16* x, int64_t row, int64_t column, int64_t n,
                                     int64_t dim, bfloat16* buffer) {
  load_squares(x, row, column, n, dim, [&](int64_t d, int64_t j, auto row_of) {
    Pairs square[tiles::side];
#pragma GCC unroll 16
    for (int i = 0; i < tiles::side; ++i)
      square[i] = joined(load_brain(row_of(2 * i)), load_brain(row_of(2 * i + 1)));
    transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < tiles::side; ++i)
      square[i].store(reinterpret_cast<uint32_t*>(buffer + (d + i) * tile_keys + j));
  });
  return {buffer, 2, tile_keys};
}

// s = k q for all of a strip; seen(j) is called when the keys before j are done.
template <class F>
FANANO_FN void multiply_keys(const bfloat16* q, Operand<bfloat16> k, int64_t n, int64_t dim,
                             float* s, F seen) {
  constexpr int strip = strip_rows<float>;
  tiles::with_parts(k.parts, [&]<int Parts>() {
    in_groups<2>(round_up(n, tiles::side) / tiles::side, [&]<int R>(int64_t i) {
      const int64_t j = i * tiles::side;
      tiles::multiply_strip<R, tiles::score_products<Parts>>(k.data + j * k.row, k.row, q, dim,
                                                             s + j * strip, k.part,
                                                             round_up(dim, tiles::deep) * strip);
      seen(j);
    });
  });
}

// amx_parts.hpp; false where there was nothing to do.
bool mend_scores(const bfloat16* q, Operand<bfloat16> k, int64_t n, int64_t dim, float* s);

inline Strip<float> score(const bfloat16* q, Operand<bfloat16> k, int64_t n, int64_t dim,
                          float* s) {
  constexpr int strip = strip_rows<float>;
  Strip<float> largest = Strip<float>::all(-infinity<float>);
  int64_t looked = 0;  // one block late: what has just been stored is not to be had at once
  auto look = [&](int64_t end) {
    Strip<float> most = largest;
    for (int64_t j = looked; j < end; ++j) {
      Strip<float> x = Strip<float>::load(s + j * strip);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) most.v[m] = max(most.v[m], x.v[m]);
    }
    largest = most, looked = end;
  };
  multiply_keys(q, k, n, dim, s, look);
  if (mend_scores(q, k, n, dim, s)) largest = Strip<float>::all(-infinity<float>), looked = 0;
  look(n);
  return largest;
}

inline void multiply(const bfloat16* q, Operand<bfloat16> k, int64_t n, int64_t dim, float* s) {
  multiply_keys(q, k, n, dim, s, [](int64_t) {});
  mend_scores(q, k, n, dim, s);
}

inline void accumulate(const bfloat16* p, Operand<bfloat16> v, int64_t n, int64_t dim,
                       const Strip<float>& alpha, float* o) {
  constexpr int strip = strip_rows<float>;
  constexpr int64_t block = 2 * tiles::side;
  alignas(64) float sums[2][block * strip];
  tiles::with_parts(v.parts, [&]<int Parts>() {
    // One block late, as in score(), where products take long enough.
    constexpr bool late = Parts > 1;
    int64_t joined = 0;
    auto join_to = [&](int64_t end) {
      for (; joined < end; ++joined) {
        const float* c = sums[late ? joined / block % 2 : 0] + joined % block * strip;
        join(Strip<float>::load(c), alpha, o + joined * strip);
      }
    };
    in_groups<2>(round_up(dim, tiles::side) / tiles::side, [&]<int R>(int64_t i) {
      const int64_t d = i * tiles::side;
      tiles::multiply_strip<R, tiles::products<Parts>>(v.data + d * v.column, v.column, p, n,
                                                       sums[late ? d / block % 2 : 0], v.part,
                                                       tile_keys * strip);
      join_to(late ? d : d + R * tiles::side);
    });
    join_to(round_up(dim, tiles::side));
  });
}

}  // namespace fanano::FANANO_ISA
