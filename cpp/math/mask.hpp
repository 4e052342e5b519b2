// Which keys a query row may see.
//
// Lengths, causal masks and windows all leave one interval of columns to each row, and both of its
// ends only grow with the row. Hence everything a kernel asks of a block of rows follows from its
// first and its last row. Positions are integers: a float32 position breaks at 2^24 keys.
#pragma once

#include "sequences.hpp"

namespace fanano {

struct Mask {
  int64_t keys = 0;
  int64_t offset = 0;                          // row i stands at key position i + offset
  int64_t first = -far_away, last = far_away;  // it sees i + first <= j <= i + last

  FANANO_FN bool visible(int64_t row, int64_t column) const {
    return column >= 0 && column < keys && column >= row + first && column <= row + last;
  }

  // The columns that one row sees.
  FANANO_FN Range columns(int64_t row) const {
    return {clamp(row + first, 0, keys), clamp(row + last + 1, 0, keys)};
  }

  // The rows that see one column, of all rows there might be: columns() read the other way.
  FANANO_FN Range rows(int64_t column) const {
    if (column < 0 || column >= keys) return {0, 0};
    return {column - last, column - first + 1};
  }

  // The smallest interval that holds what any of these rows sees.
  FANANO_FN Range columns(Range rows) const {
    return {columns(rows.begin).begin, columns(rows.end - 1).end};
  }

  // The tiles to visit. Tiles are cut at multiples of their size in absolute key position, so that
  // a row's sums are grouped the same way whatever its window, its block or its batch.
  FANANO_FN Range tiles(Range rows, int64_t size) const {
    Range c = columns(rows);
    if (c.size() == 0) return {0, 0};
    return {c.begin / size, (c.end + size - 1) / size};
  }

  // Every row sees every one of these columns: the tile needs no mask.
  FANANO_FN bool whole(Range rows, Range c) const {
    return columns(rows.end - 1).begin <= c.begin && columns(rows.begin).end >= c.end;
  }
};

// Of a sequence and a window of any size: p - left <= j <= p + right, negative is unbounded. Both
// sums may be beyond 64 bits, and only then are they cut: a window may bring back what an offset
// has moved far away.
FANANO_FN Mask make_mask(Sequence s, int64_t left, int64_t right) {
  auto near = [](__int128 x) {
    return int64_t(x < -far_away ? -far_away : x > far_away ? far_away : x);
  };
  Mask mask;
  mask.keys = s.keys, mask.offset = s.offset;
  if (left >= 0) mask.first = near(__int128(s.offset) - left);
  if (right >= 0) mask.last = near(__int128(s.offset) + right);
  return mask;
}

}  // namespace fanano
