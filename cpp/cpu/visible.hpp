// Which rows of a strip see which keys of a tile: lengths, causality and windows (math/mask.hpp)
// joined with the caller's own mask.
//
// For each key a word with a bit for each row: lanes are rows, so that is what a kernel selects by.
// A mask's memory is row-major. Eight rows are turned at a time by nothing but additions: doubling
// the bytes collected so far moves the bits of the rows before up by one.
#pragma once

#include "../math/mask.hpp"
#include "../problem.hpp"
#include "tile_sizes.hpp"
#include "typed.hpp"

namespace fanano::FANANO_ISA {

// The caller's mask of one head.
struct Elements {
  const void* data = nullptr;  // null: none
  Dtype dtype = Dtype::boolean;
  int64_t row = 0, column = 0;  // strides

  bool boolean() const { return data && dtype == Dtype::boolean; }
  bool additive() const { return data && dtype != Dtype::boolean; }
  template <class T> FANANO_FN const T* at(int64_t i, int64_t j) const {
    return static_cast<const T*>(data) + i * row + j * column;
  }
};

template <class A> struct Visible {
  static_assert(strip_rows<A> <= 64);
  bool whole = true;         // every row sees every key: `rows` need not be filled in
  bool none = false;         // no row sees any
  uint64_t rows[tile_keys];  // bits beyond the strip's last row may be anything
};

FANANO_FN uint64_t first_bits(int64_t n) { return n >= 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1; }

// By position: the rows that see a key are neighbours.
FANANO_FN void see_positions(const Mask& mask, Range r, int64_t j0, int64_t n, uint64_t* rows) {
  for (int64_t j = 0; j < n; ++j) {
    Range seen = mask.rows(j0 + j);
    int64_t begin = clamp(seen.begin - r.begin, 0, r.size());
    int64_t end = seen.end >= r.end ? 64 : clamp(seen.end - r.begin, 0, r.size());
    rows[j] = first_bits(end) & ~first_bits(begin);
  }
}

// Whether an element of a mask lets its key be seen: true, or a number above -inf.
FANANO_FN bool shows(uint8_t x) { return x != 0; }
FANANO_FN bool shows(bfloat16 x) { return x.bits != 0xff80; }
FANANO_FN bool shows(float16 x) { return x.bits != 0xfc00; }
FANANO_FN bool shows(float x) { return x != -infinity<float>; }
FANANO_FN bool shows(double x) { return x != -infinity<double>; }

// A mask's rows are too short, in one tile, for the processor to foresee the next.
template <class T> FANANO_FN void prefetch(const T* x, int64_t n) {
  for (int64_t j = 0; j < n; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(x + j, 0, 2);
}

// By the caller's mask: x is its element of the first row and key.
template <class T>
void see_elements(const T* x, int64_t row, int64_t column, int64_t count, int64_t n,
                  uint64_t* rows) {
  if (row == 0) {
    for (int64_t j = 0; j < n; ++j) rows[j] &= shows(x[j * column]) ? ~uint64_t(0) : 0;
    return;
  }
  uint64_t seen[tile_keys];
  for (int64_t j = 0; j < n; ++j) seen[j] = ~first_bits(count);
  for (int64_t first = 0; first < count; first += 8) {
    uint8_t bits[tile_keys] = {};
    for (int64_t i = (count < first + 8 ? count : first + 8) - 1; i >= first; --i) {
      const T* from = x + i * row;
      if (column == 1) {
        prefetch(from + n, n);
        for (int64_t j = 0; j < n; ++j) bits[j] = uint8_t(bits[j] + bits[j] + shows(from[j]));
      } else {
        for (int64_t j = 0; j < n; ++j)
          bits[j] = uint8_t(bits[j] + bits[j] + shows(from[j * column]));
      }
    }
    for (int64_t j = 0; j < n; ++j) seen[j] |= uint64_t(bits[j]) << first;
  }
  for (int64_t j = 0; j < n; ++j) rows[j] &= seen[j];
}

// Whether an additive mask leaves the rows r none of the keys [j0, j0 + n). Seldom so, and what is
// not so is seen at the first elements.
FANANO_FN bool hides_all(const Elements& x, Range r, int64_t j0, int64_t n) {
  bool any = false;
  with_type(x.dtype, [&]<class T>() {
    for (int64_t i = r.begin; i < r.end && !any; ++i) {
      const T* row = x.at<T>(i, j0);
      for (int64_t first = 0; first < n && !any; first += 16)
        for (int64_t j = first; j < first + 16 && j < n; ++j) any |= shows(row[j * x.column]);
    }
  });
  return !any;
}

// The rows r of one head, the keys [j0, j0 + n): by position, and by the caller's mask, an additive
// one only if asked: logits() says what that hides.
template <class A>
void look(const Mask& mask, const Elements& elements, Range r, int64_t j0, int64_t n,
          Visible<A>& see, bool additive = false) {
  const bool read = elements.boolean() || (additive && elements.data);
  see.whole = mask.whole(r, {j0, j0 + n}), see.none = false;
  if (see.whole && !read) return;
  if (see.whole)
    for (int64_t j = 0; j < n; ++j) see.rows[j] = ~uint64_t(0);
  else
    see_positions(mask, r, j0, n, see.rows);
  if (read)
    with_element(elements.dtype, [&]<class T>() {
      see_elements(elements.at<T>(r.begin, j0), elements.row, elements.column, r.size(), n,
                   see.rows);
    });
  uint64_t all = ~uint64_t(0), any = 0;
  for (int64_t j = 0; j < n; ++j) all &= see.rows[j], any |= see.rows[j];
  see.whole = all == ~uint64_t(0), see.none = (any & first_bits(r.size())) == 0;
}

}  // namespace fanano::FANANO_ISA
