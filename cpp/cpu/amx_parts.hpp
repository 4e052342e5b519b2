// Numbers in parts, for tile registers, which multiply bfloat16: a float16 is the sum of two of
// those and a float of three, exactly, each the nearest to what is left. Three or four products for
// one of float16, and six for one of floats, are faster than those of floats. The three of nine
// that are left out are at most 2^-24 of the whole, and mostly a tenth of that. (Weights are cut
// into parts, not rounded, which is faster: there what is left out has either sign, too, and is at
// most three times as much.)
//
// The instruction takes parts and products below 2^-126 for zeros. Rows of q and keys that are tiny
// are multiplied by a power of two, and their scores by its inverse; the scores of those that are
// huge or not finite, where that does not do, are made from numbers. Values that are tiny or not
// finite are summed with care (special_values.hpp). tile.hpp includes this after amx.hpp.
#pragma once

#include <concepts>

namespace fanano::FANANO_ISA {

template <class T>
concept InParts = std::same_as<T, float16> || std::same_as<T, float>;

FANANO_FN Vec<float> upper_half(Vec<float> x) {
  return {(Vec<float>::Native)((Pairs::Native)x.v & 0xffff0000)};
}

inline constexpr float largest_split = 0x1p127f;  // infinity is nearest to the largest numbers

template <int N> struct Parts {
  Vec<float> part[N];

  // Of numbers below largest_split.
  explicit FANANO_FN Parts(Vec<float> x) {
#pragma GCC unroll 3
    for (int i = 0; i < N; ++i) {
      Vec<float> nearest = {(Vec<float>::Native)((Pairs::Native)x.v + 0x8000)};
      part[i] = upper_half(nearest);
      x = x - part[i];
    }
  }

  // Of any; of what is not finite the first part is the number, and the others are 0.
  template <bool Any> static FANANO_FN Parts of(Vec<float> x) {
    if constexpr (!Any) return Parts(x);
    const Vec<float> zero = Vec<float>::all(0), change = x - x;  // NaN where x is not finite
    const Vec<float> size = max(x, zero - x), limit = Vec<float>::all(largest_split);
    const Vec<float> high = upper_half(x + zero);  // of every NaN's upper half then is one
    Parts parts(select_less(size, limit, x, zero));
    Parts rests(select_equal(change, zero, x - high, zero));
    parts.part[0] = select_less(size, limit, parts.part[0], high);
    for (int i = 1; i < N; ++i)
      parts.part[i] = select_less(size, limit, parts.part[i], rests.part[i - 1]);
    return parts;
  }
};

// The larger of each lane's sizes; a NaN is larger than all else.
FANANO_FN Vec<float> larger_size(Vec<float> size, Vec<float> x) {
  return {(Vec<float>::Native)max((Pairs){(Pairs::Native)size.v},
                                  (Pairs){(Pairs::Native)x.v & 0x7fffffff})
              .v};
}

inline constexpr float huge_row = 0x1p58f, tiny_row = 0x1p-48f, tiny_factor = 0x1p-78f;

// What the scores of a row are to be multiplied by, NaN for one whose scores are made from numbers.
// `size` is as large as its numbers are, in one lane or another.
FANANO_FN float factor_of(Vec<float> size) {
  bool some = any_less(Vec<float>::all(0), size);
  if (!all_less(size, Vec<float>::all(huge_row))) return __builtin_nanf("");
  return some && !any_less(Vec<float>::all(tiny_row), size) ? tiny_factor : 1;
}

// The parts of n numbers times `by`, each of them filled up with zeros to whole terms. Of 32
// columns the first and the 17th are a pair, the second and the 18th ..., in rows of q and keys
// alike, so that nothing has to change places. Returns the row's factor.
template <InParts T>
FANANO_FN float split_row(const T* x, int64_t stride, int64_t n, float by, bfloat16* to) {
  constexpr int N = parts<T, bfloat16>, w = Vec<float>::width;
  static_assert(tiles::deep == 2 * w);
  const int64_t part = round_up(n, tiles::deep);
  Vec<float> size = Vec<float>::all(0);
  auto split = [&]<bool Any>(const auto* from, float scale) {
    for (int64_t d = 0; d < part; d += tiles::deep) {
      Vec<float> first = load_wide(from + d) * Vec<float>::all(scale);
      Vec<float> second = load_wide(from + d + w) * Vec<float>::all(scale);
      size = larger_size(larger_size(size, first), second);
      auto y = Parts<N>::template of<Any>(first), z = Parts<N>::template of<Any>(second);
      for (int i = 0; i < N; ++i)
        joined(y.part[i], z.part[i]).store(reinterpret_cast<uint32_t*>(to + i * part + d));
    }
  };
  auto all = [&](const auto* from) {
    split.template operator()<false>(from, by);  // as most are
    const float factor = factor_of(size);
    if (factor != factor)
      split.template operator()<true>(from, by);
    else if (factor != 1)
      split.template operator()<false>(from, by / factor);
    return factor;
  };
  if (stride == 1 && part == n) return all(x);
  alignas(64) float row[max_dim];
  widen(x, stride, row, n);
  for (int64_t d = n; d < part; ++d) row[d] = 0;
  return all(static_cast<const float*>(row));
}

template <InParts T>
void pack(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim, float factor,
          bfloat16* strip, bfloat16* rows) {
  const int64_t terms = parts<T, bfloat16> * round_up(dim, tiles::deep);
  auto factors = reinterpret_cast<float*>(strip + terms * strip_rows<float>);
  std::fill_n(factors, strip_rows<float>, 1.0f);
  auto fill = [&](int64_t i, uint32_t* to) {
    factors[i] = split_row(x + i * row, column, dim, factor, reinterpret_cast<bfloat16*>(to));
  };
  pack(
      n, terms / 2, fill, [](Pairs v, int) { return v; }, reinterpret_cast<uint32_t*>(strip),
      reinterpret_cast<uint32_t*>(rows));
}

template <InParts T>
Operand<bfloat16> load(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                       bfloat16* buffer) {
  constexpr int N = parts<T, bfloat16>;
  const int64_t part = round_up(dim, tiles::deep), end = round_up(n, tiles::side);
  auto factors = reinterpret_cast<float*>(buffer + tile_keys * N * part);
  bool all = true;
  for (int64_t j = 0; j < n; ++j) {
    factors[j] = split_row(x + j * row, column, dim, 1, buffer + j * N * part);
    all &= factors[j] == 1;
  }
  std::memset(buffer + n * N * part, 0, size_t((end - n) * N * part) * sizeof *buffer);
  return {buffer, N * part, 2, part, N, all ? nullptr : factors};
}

template <InParts T>
Operand<bfloat16> load_values(const T* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                              bfloat16* buffer) {
  constexpr int N = parts<T, bfloat16>;
  load_squares(x, row, column, n, dim, [&](int64_t d, int64_t j, auto row_of) {
    // Turned as numbers, of which there are fewer than of parts.
    Vec<float> even[tiles::side], odd[tiles::side], size = Vec<float>::all(0);
#pragma GCC unroll 16
    for (int i = 0; i < tiles::side; ++i) even[i] = load_wide(row_of(2 * i));
    transpose(even);
#pragma GCC unroll 16
    for (int i = 0; i < tiles::side; ++i) odd[i] = load_wide(row_of(2 * i + 1));
    transpose(odd);
    auto split = [&]<bool Any>() {
      for (int i = 0; i < tiles::side; ++i) {
        size = larger_size(larger_size(size, even[i]), odd[i]);
        auto x = Parts<N>::template of<Any>(even[i]), y = Parts<N>::template of<Any>(odd[i]);
        for (int k = 0; k < N; ++k)
          joined(x.part[k], y.part[k])
              .store(reinterpret_cast<uint32_t*>(buffer + ((d + i) * N + k) * tile_keys + j));
      }
    };
    split.template operator()<false>();  // as most are
    if (!all_less(size, Vec<float>::all(largest_split))) split.template operator()<true>();
  });
  Operand<bfloat16> values{buffer, 2, N * tile_keys, tile_keys, N};
  if constexpr (std::same_as<T, float>)
    values.numbers = x, values.numbers_row = row, values.numbers_column = column;
  return values;
}

// Weights of two neighbouring keys in N parts, so far apart: each the upper half of what is left,
// but the nearest to the last that does not hold it all.
template <int N>
FANANO_FN void store_parts(Vec<float> first, Vec<float> second, uint32_t* to, int64_t part) {
  auto next = [](Vec<float> x, bool last) {
    return upper_half({(Vec<float>::Native)((Pairs::Native)x.v + (last && N < 3 ? 0x8000 : 0))});
  };
#pragma GCC unroll 3
  for (int i = 0; i < N; ++i) {
    Vec<float> x = next(first, i + 1 == N), y = next(second, i + 1 == N);
    joined(x, y).store(to + i * part);
    first = first - x, second = second - y;
  }
}

// A strip's scores with key j, of vector m, from numbers: parts, whole again, and as they were.
inline Vec<float> whole_scores(const bfloat16* q, Vec<float> of_row, Operand<bfloat16> k,
                               Vec<float> of_key, int64_t j, int64_t dim, int m) {
  constexpr int strip = strip_rows<float>;
  const int64_t part = round_up(dim, tiles::deep) * strip;
  const Vec<float> one = Vec<float>::all(1);
  of_row = select_equal(of_row, of_row, of_row, one);
  of_key = select_equal(of_key, of_key, of_key, one);
  Vec<float> sum = Vec<float>::all(0);
  for (int64_t d = 0; d < round_up(dim, tiles::deep); d += 2) {
    Vec<float> first = Vec<float>::all(0), second = first;
    float key[2] = {};
    for (int i = 0; i < k.parts; ++i) {
      Pairs x = Terms<bfloat16>::load(q + i * part + d * strip + m * 2 * Pairs::width);
      first = first + first_of(x), second = second + second_of(x);
      for (int both : {0, 1}) key[both] += number(k.data[j * k.row + i * k.part + d + both]);
    }
    sum = fma(first * of_row, Vec<float>::all(key[0]) * of_key, sum);
    sum = fma(second * of_row, Vec<float>::all(key[1]) * of_key, sum);
  }
  return sum;
}

inline bool mend_scores(const bfloat16* q, Operand<bfloat16> k, int64_t n, int64_t dim, float* s) {
  constexpr int strip = strip_rows<float>, w = Vec<float>::width;
  if (k.parts == 1) return false;
  auto rows = reinterpret_cast<const float*>(q + k.parts * round_up(dim, tiles::deep) * strip);
  bool plain = !k.factors;
  for (int i = 0; i < strip; ++i) plain &= rows[i] == 1;
  if (plain) return false;

  for (int64_t j = 0; j < n; ++j)
    for (int m = 0; m < M; ++m) {
      const Vec<float> of_key = Vec<float>::all(k.factors ? k.factors[j] : 1);
      const Vec<float> of_row = Vec<float>::load(rows + m * w), both = of_row * of_key;
      float* at = s + j * strip + m * w;
      Vec<float> x = Vec<float>::load(at) * of_row * of_key;
      if (!all_less(both, Vec<float>::all(2)))  // NaN
        x = select_equal(both, both, x, whole_scores(q, of_row, k, of_key, j, dim, m));
      x.store(at);
    }
  return true;
}

}  // namespace fanano::FANANO_ISA
