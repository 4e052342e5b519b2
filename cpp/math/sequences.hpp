// Lengths: what of a padded batch is used, and where each query row stands among the keys.
#pragma once

#include <cstdint>

#include "host_device.hpp"

namespace fanano {

struct Range {  // half open; empty when end <= begin
  int64_t begin = 0, end = 0;
  FANANO_FN int64_t size() const { return end > begin ? end - begin : 0; }
};

FANANO_FN int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// Beyond this a position sees all keys or none, and sums with numbers of rows cannot overflow.
inline constexpr int64_t far_away = int64_t(1) << 62;

struct Sequence {
  int64_t queries = 0, keys = 0;  // used; what lies beyond is padding and is not read
  int64_t offset = 0;             // query row i stands at key position i + offset, any number
};

// Sequence b of a batch; a null pointer means full lengths, and the lower-right alignment.
FANANO_FN Sequence sequence(int64_t b, int64_t queries, int64_t keys, const int64_t* used_queries,
                            const int64_t* used_keys, const int64_t* offsets) {
  Sequence s;
  s.queries = used_queries ? clamp(used_queries[b], 0, queries) : queries;
  s.keys = used_keys ? clamp(used_keys[b], 0, keys) : keys;
  s.offset = offsets ? offsets[b] : s.keys - s.queries;
  return s;
}

}  // namespace fanano
