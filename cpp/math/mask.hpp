// Which keys a query row may see.
//
// Lengths, causal masks and windows all leave one interval of columns to each row, and both of its
// ends only grow with the row. Hence everything a kernel asks of a block of rows follows from its
// first and its last row. Positions are integers: a float32 position breaks at 2^24 keys.
#pragma once

#include "sequences.hpp"

namespace fanano {

struct Mask {
  int64_t keys = 0, offset = 0;   // Sequence's
  int64_t left = -1, right = -1;  // Window's: p - left <= j <= p + right, negative is unbounded

  FANANO_FN bool visible(int64_t row, int64_t column) const {
    int64_t p = row + offset;
    return column >= 0 && column < keys && (left < 0 || column >= p - left) &&
           (right < 0 || column <= p + right);
  }

  // The columns that one row sees.
  FANANO_FN Range columns(int64_t row) const {
    int64_t p = row + offset;
    return {left < 0 ? 0 : clamp(p - left, 0, keys),
            right < 0 ? keys : clamp(p + right + 1, 0, keys)};
  }

  // The rows that see one column, of all rows there might be: columns() read the other way.
  FANANO_FN Range rows(int64_t column) const {
    if (column < 0 || column >= keys) return {0, 0};
    return {right < 0 ? -2 * far_away : column - right - offset,
            left < 0 ? 2 * far_away : column + left - offset + 1};
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

// A mask from a window of any size.
FANANO_FN Mask make_mask(Sequence s, int64_t left, int64_t right) {
  return {s.keys, s.offset, clamp(left, -1, far_away), clamp(right, -1, far_away)};
}

}  // namespace fanano
