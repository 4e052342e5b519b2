// float16 by tile registers, which multiply bfloat16: a float16 is the sum of two of those, the
// nearest and the rest. Three or four products for one are still faster than those of floats.
//
// Keys and queries, which may be infinite, have three parts: also the nearest if it is finite, else
// 0, which is what rests are multiplied by, for 0 times an infinity is NaN. Values have two: a tile
// in which one is not finite is summed with care (special_values.hpp), from the first part. So have
// weights, rounded to 16 bits, of which a float16 has 11. tile.hpp includes this after amx.hpp.
#pragma once

namespace fanano::FANANO_ISA {

// The parts of floats that are float16 numbers.
struct Parts {
  Vec<float> nearest, finite, rest;
  explicit Parts(Vec<float> x) {
    const Vec<float> zero = Vec<float>::all(0), change = x - x;  // NaN where x is not finite
    auto bits = (Pairs::Native)x.v;
    Vec<float> rounded = {(Vec<float>::Native)((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000)};
    nearest = select_equal(change, zero, rounded, x);  // a NaN could be rounded to a number
    finite = select_equal(change, zero, rounded, zero);
    rest = select_equal(change, zero, x - rounded, zero);
  }
};

// The parts of n numbers times the factor, each of them filled up with zeros to whole terms.
inline void split_terms(const float16* x, int64_t stride, int64_t n, float factor, bfloat16* to) {
  const int64_t part = round_up(n, tiles::deep);
  for (int64_t d = 0; d < n; d += tiles::deep) {
    float16 some[tiles::deep] = {};
    copy_terms(x + d * stride, stride, some, clamp(n - d, 0, tiles::deep));
    Vec<float> by = Vec<float>::all(factor);
    Parts a(load_half(some) * by), b(load_half(some + tiles::side) * by);
    auto store = [&](Vec<float> first, Vec<float> second, bfloat16* at) {
      narrowed(first, second).store(reinterpret_cast<uint16_t*>(at));
    };
    store(a.nearest, b.nearest, to + d), store(a.finite, b.finite, to + part + d);
    store(a.rest, b.rest, to + 2 * part + d);
  }
}

inline void pack(const float16* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                 float factor, bfloat16* strip, bfloat16* rows) {
  auto fill = [&](int64_t i, uint32_t* to) {
    split_terms(x + i * row, column, dim, factor, reinterpret_cast<bfloat16*>(to));
  };
  pack(
      n, 3 * round_up(dim, tiles::deep) / 2, fill, [](Pairs v, int) { return v; },
      reinterpret_cast<uint32_t*>(strip), reinterpret_cast<uint32_t*>(rows));
}

inline Operand<bfloat16> load(const float16* x, int64_t row, int64_t column, int64_t n, int64_t dim,
                              bfloat16* buffer) {
  int64_t part = round_up(dim, tiles::deep), end = round_up(n, tiles::side);
  for (int64_t j = 0; j < n; ++j) split_terms(x + j * row, column, dim, 1, buffer + j * 3 * part);
  std::memset(buffer + n * 3 * part, 0, size_t((end - n) * 3 * part) * sizeof *buffer);
  return {buffer, 3 * part, 2, part};
}

inline Operand<bfloat16> load_values(const float16* x, int64_t row, int64_t column, int64_t n,
                                     int64_t dim, bfloat16* buffer) {
  constexpr int64_t part = tile_keys;
  load_squares(x, row, column, n, dim, [&](int64_t d, int64_t j, auto row_of) {
    Pairs squares[2][tiles::side];
    for (int i = 0; i < tiles::side; ++i) {
      Parts first(load_half(row_of(2 * i))), second(load_half(row_of(2 * i + 1)));
      squares[0][i] = joined(first.nearest, second.nearest);
      squares[1][i] = joined(first.rest, second.rest);
    }
    for (int k = 0; k < 2; ++k) store_square(squares[k], buffer + (d * 2 + k) * part + j, 2 * part);
  });
  return {buffer, 2, 2 * part, part};
}

// Weights of two neighbouring keys in two parts, the nearest bfloat16 and that of the rest, `part`
// apart.
FANANO_FN void store_parts(Vec<float> first, Vec<float> second, uint32_t* to, int64_t part) {
  auto nearest = [](Vec<float> x, Vec<float> y) {
    return Pairs{(Pairs::Native)side_by_side(narrowed(x, y)).v};
  };
  Pairs most = nearest(first, second);
  most.store(to);
  nearest(first - first_of(most), second - second_of(most)).store(to + part);
}

}  // namespace fanano::FANANO_ISA
