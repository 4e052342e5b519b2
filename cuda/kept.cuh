// What dropout keeps (cpp/math/dropout.hpp): for four neighbouring columns of a row, as one counter
// gives them, or for the row of a tile.
#pragma once

#include "../cpp/math/dropout.hpp"
#include "../cpp/problem.hpp"

namespace fanano::cuda {

// The dropout of one head. Off, it keeps everything.
struct Kept {
  bool on;
  float factor;  // of what is kept
  uint64_t seed, column;
  uint32_t least, row, head, batch;

  __device__ Kept(const Dropout& d, int64_t batch_, int64_t head_)
      : on(d.p > 0), factor(on ? float(kept_factor(d.p)) : 1), seed(d.seed),
        column(uint64_t(d.column)), least(least_kept(d.p)), row(uint32_t(d.row)),
        head(uint32_t(d.head + head_)), batch(uint32_t(d.batch + batch_)) {}

  __device__ bool keeps(int64_t i, int64_t j) const {
    const uint64_t at = column + uint64_t(j);
    return !on || (kept_of(at / columns_together, i) >> at % columns_together & 1);
  }

  // Row i, columns [j, j + 4): a bit for each that is kept. They may lie on both sides of a
  // counter's four.
  __device__ unsigned of_four(int64_t i, int64_t j) const {
    const uint64_t first = column + uint64_t(j), four = first / columns_together;
    const int shift = int(first % columns_together);
    unsigned bits = kept_of(four, i) >> shift;
    if (shift) bits |= kept_of(four + 1, i) << (columns_together - shift);
    return bits;
  }

  // Row i, columns [j0, j0 + Keys).
  template <int Keys> __device__ uint64_t of_row(int64_t i, int64_t j0) const {
    const uint64_t first = column + uint64_t(j0);
    const int before = int(first % columns_together);  // columns of the first four
    uint64_t bits = 0;
#pragma unroll 1
    for (int j = -before; j < Keys; j += columns_together) {
      const uint64_t four = kept_of((first + j) / columns_together, i);
      bits |= j < 0 ? four >> -j : four << j;
    }
    return bits;
  }

 private:
  __device__ unsigned kept_of(uint64_t four, int64_t i) const {
    const FourWords<uint32_t> words =
        philox({uint32_t(four), row + uint32_t(i), head, batch}, seed);
    unsigned bits = 0;
#pragma unroll
    for (int k = 0; k < columns_together; ++k) bits |= unsigned(words.x[k] >= least) << k;
    return bits;
  }
};

}  // namespace fanano::cuda
