// What dropout keeps (cpp/math/dropout.hpp), for four neighbouring columns of a row, as one counter
// gives them.
#pragma once

#include "../cpp/math/dropout.hpp"
#include "../cpp/problem.hpp"

namespace fanano::cuda {

// The dropout of one head.
struct Kept {
  bool on;
  uint64_t seed;
  uint32_t least, head, batch;
  int64_t row, column;  // of the problem's first pair

  __device__ Kept(const Dropout& d, int64_t batch, int64_t head)
      : on(d.p > 0), seed(d.seed), least(least_kept(d.p)), head(uint32_t(d.head + head)),
        batch(uint32_t(d.batch + batch)), row(d.row), column(d.column) {}

  // Row i, columns [j, j + 4): a bit for each that is kept. They may lie on both sides of a
  // counter's four.
  __device__ unsigned of_four(int64_t i, int64_t j) const {
    const uint64_t first = uint64_t(column + j), four = first / columns_together;
    const int shift = int(first % columns_together);
    unsigned bits = kept_of(four, i) >> shift;
    if (shift) bits |= kept_of(four + 1, i) << (columns_together - shift);
    return bits;
  }

 private:
  __device__ unsigned kept_of(uint64_t four, int64_t i) const {
    const FourWords<uint32_t> words =
        philox({uint32_t(four), uint32_t(row + i), head, batch}, seed);
    unsigned bits = 0;
#pragma unroll
    for (int k = 0; k < columns_together; ++k) bits |= unsigned(words.x[k] >= least) << k;
    return bits;
  }
};

}  // namespace fanano::cuda
