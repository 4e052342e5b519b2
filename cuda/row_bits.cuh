// Which keys of a tile a query row sees, and which dropout keeps (kept.cuh): a word with a bit for
// each key. Lane l of a warp makes the word of row l of the warp's rows (of 16 rows, lanes 16 apart
// make the same ones); the lanes that hold a row's fragments fetch it.
#pragma once

#include "../cpp/math/mask.hpp"
#include "logits.cuh"
#include "ptx/shuffle.cuh"
#include "ptx/wide.cuh"

namespace fanano::cuda {

using RowBits = uint64_t;

// Bits 0 to n - 1.
__device__ __forceinline__ RowBits bits_below(int64_t n) {
  n = clamp(n, 0, 64);
  return n == 64 ? ~RowBits(0) : (RowBits(1) << n) - 1;
}

__device__ __forceinline__ RowBits bits_of(Range columns, int64_t j0) {
  return bits_below(columns.end - j0) & ~bits_below(columns.begin - j0);
}

// The word of row r, for the lane that holds its columns lane % 4 * 2 and the next: from bit 0 on.
template <int Keys> __device__ __forceinline__ RowBits fetch_bits(RowBits word, int r) {
  RowBits bits = ptx::shuffle(uint32_t(word), r);
  if constexpr (Keys > 32) bits |= RowBits(ptx::shuffle(uint32_t(word >> 32), r)) << 32;
  return bits >> (threadIdx.x % 4 * 2);
}

// Of the lane's row: the keys whose score is -inf, so that their weight is exactly 0.
template <int M, int N> __device__ __forceinline__ RowBits weightless(const float (&s)[M][N][4]) {
  const int lane = threadIdx.x % 32;
  RowBits of_row = 0;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      RowBits bits = 0;
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          bits |= RowBits(s[m][n][2 * half + e] == -infinity<float>) << (n * 8 + e);
      bits <<= lane % 4 * 2;
#pragma unroll
      for (int quad = 1; quad < 4; quad *= 2)  // a quad of lanes has the row
        bits |= ptx::shuffle_xor(uint32_t(bits), quad) |
                RowBits(ptx::shuffle_xor(uint32_t(bits >> 32), quad)) << 32;
      // Lane l, for which row l is made, has its like 8 lanes apart.
      bits = ptx::shuffle(uint32_t(bits), lane % 8 * 4) |
             RowBits(ptx::shuffle(uint32_t(bits >> 32), lane % 8 * 4)) << 32;
      if (lane / 8 % (2 * M) == m * 2 + half) of_row = bits;
    }
  return of_row;
}

// The caller's mask, for the first rows of Rows, and keys [j0, j0 + Keys). All lanes together read
// a row at a time, so that neighbours in memory are read at once; addends are left in the warp's
// own shared memory. begin(r): where row r begins in the mask. Returns the bits of the lane's row.
//
// Gap: numbers between two rows. With 8, pairs of a fragment's 4 columns in 4 rows lie in 32
// different banks; with 4, the numbers of 8 columns in every second of 8 rows do.
template <int Rows, int Keys, int Gap = 8> struct MaskTile {
  static constexpr int stride = Keys + Gap, parts = (Keys + 31) / 32;
  static constexpr int bytes = Rows * stride * 4;
  uint32_t smem;  // address

  __device__ uint32_t at(int r, int column) const { return smem + (r * stride + column) * 4; }

  template <class Begin>
  __device__ RowBits load(const Elements& x, int rows, Begin begin, int64_t j0,
                          int64_t keys) const {
    constexpr int together = 4;  // rows whose elements are under way at once
    const int lane = threadIdx.x % 32;
    RowBits bits = 0;
    x.with_type([&]<class E>() {
#pragma unroll 1
      for (int r0 = 0; r0 < Rows; r0 += together) {
        float addend[together][parts];
#pragma unroll
        for (int r = 0; r < together; ++r)
#pragma unroll
          for (int part = 0; part < parts; ++part) {
            const int64_t j = j0 + part * 32 + lane;
            const bool there = r0 + r < rows && j < keys && lane < Keys;
            addend[r][part] = there ? x.addend_at<E, float>(begin(r0 + r), j) : -infinity<float>;
          }
#pragma unroll
        for (int r = 0; r < together; ++r)
#pragma unroll
          for (int part = 0; part < parts; ++part) {
            const RowBits seen = ptx::ballot(addend[r][part] != -infinity<float>);
            if (lane % Rows == r0 + r) bits |= seen << (part * 32);
            if (x.additive() && lane < Keys)
              ptx::store_shared(at(r0 + r, part * 32 + lane), addend[r][part]);
          }
      }
    });
    return bits;
  }
};

}  // namespace fanano::cuda
