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

// The caller's mask, for the first rows of Rows, and keys [j0, j0 + Keys). All lanes together read
// a row at a time, so that neighbours in memory are read at once; addends are left in the warp's
// own shared memory. begin(r): where row r begins in the mask. Returns the bits of the lane's row.
template <int Rows, int Keys> struct MaskTile {
  // Pairs of a fragment's 4 columns in 4 rows lie in 32 different banks.
  static constexpr int stride = Keys + 8;
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
        float addend[together][Keys / 32];
#pragma unroll
        for (int r = 0; r < together; ++r)
#pragma unroll
          for (int part = 0; part < Keys / 32; ++part) {
            const int64_t j = j0 + part * 32 + lane;
            const bool there = r0 + r < rows && j < keys;
            addend[r][part] = there ? x.addend_at<E, float>(begin(r0 + r), j) : -infinity<float>;
          }
#pragma unroll
        for (int r = 0; r < together; ++r)
#pragma unroll
          for (int part = 0; part < Keys / 32; ++part) {
            const RowBits seen = ptx::ballot(addend[r][part] != -infinity<float>);
            if (lane % Rows == r0 + r) bits |= seen << (part * 32);
            if (x.additive()) ptx::store_shared(at(r0 + r, part * 32 + lane), addend[r][part]);
          }
      }
    });
    return bits;
  }
};

}  // namespace fanano::cuda
