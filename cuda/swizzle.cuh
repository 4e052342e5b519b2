// A tile of rows of 64 numbers of 16 bits in shared memory: 128 bytes, 8 chunks of 16. Chunk c of
// row r stands at place c ^ r % 8, so that the same chunk of 8 rows, which ldmatrix reads at once,
// lies in 8 different groups of banks.
#pragma once

#include <cstdint>

#include "ptx/cp_async.cuh"

namespace fanano::cuda {

inline constexpr int chunks = 8;  // of a row

template <class T> struct SwizzledTile {
  uint32_t smem;  // address

  __device__ uint32_t chunk(int row, int c) const {
    return smem + row * (chunks * 16) + ((c ^ (row % chunks)) << 4);
  }

  // load: all threads of the block, rows [row0, end) of an operand; zeros past the end.
  template <int Rows, int Threads>
  __device__ void load(const T* data, int64_t row_stride, int64_t row0, int64_t end) const {
#pragma unroll
    for (int i = threadIdx.x; i < Rows * chunks; i += Threads) {
      int row = i / chunks, c = i % chunks;
      bool there = row0 + row < end;
      ptx::cp_async(chunk(row, c), data + (there ? row0 + row : 0) * row_stride + c * 8, there);
    }
  }
};

}  // namespace fanano::cuda
