// A tile of rows of Dim numbers of 16 bits in shared memory, in chunks of 16 bytes. ldmatrix reads
// the same chunk of 8 rows at once, which must lie in 8 different groups of banks: chunk c of row r
// stands at place c ^ r % 8. Where rows are an odd number of half lines of 64 bytes, neighbours lie
// in different halves as they are, and pairs of rows have to differ: c ^ r / 2 % 4.
#pragma once

#include <cstdint>

#include "numbers.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/pack.cuh"
#include "ptx/wide.cuh"

namespace fanano::cuda {

inline constexpr int per_chunk = 8;  // numbers of 16 bits

// The rows of one head of an operand in device memory.
template <class T> struct HeadRows {
  T* data;
  int64_t row, column;  // strides
  int columns;
  bool chunked;  // rows begin at multiples of 16 bytes, and neighbours are neighbours in memory

  __device__ HeadRows(const Tensor& t, int64_t batch, int64_t head, int64_t columns_)
      : data(at<T>(t, batch, head, 0)), row(t.row), column(t.column), columns(int(columns_)) {
    const int64_t offsets = t.batch | t.head | t.row;
    chunked = column == 1 && offsets % per_chunk == 0 &&
              reinterpret_cast<uintptr_t>(t.data) % (per_chunk * sizeof(T)) == 0;
  }
  // Of the numbers of chunk c: those that the row has.
  __device__ int numbers_in(int c) const { return int(clamp(columns - c * per_chunk, 0, 8)); }
  __device__ T* chunk(int64_t r, int c) const { return data + r * row + c * per_chunk * column; }
};

template <class T, int Dim> struct SwizzledTile {
  static constexpr int chunks = Dim / per_chunk;  // of a row
  static_assert(chunks % 4 == 0 && sizeof(T) == 2);
  static constexpr int bytes(int rows) { return rows * Dim * 2; }

  uint32_t smem;  // address

  __device__ uint32_t chunk(int row, int c) const {
    const int moved = chunks % 8 == 0 ? c ^ row % 8 : c ^ row / 2 % 4;
    return smem + (row * chunks + moved) * 16;
  }

  // load: so many threads, of which this is one, rows [row0, end) of an operand (HeadRows, or its
  // like); zeros past the end and past the operand's columns. In the background, but for what lies
  // in no chunks: that is gathered.
  template <int Rows, int Threads, class X>
  __device__ void load(const X& x, int64_t row0, int64_t end, int thread = threadIdx.x) const {
    if (x.chunked) {
#pragma unroll
      for (int i = thread; i < Rows * chunks; i += Threads) {
        const int row = i / chunks, c = i % chunks;
        const bool there = row0 + row < end;
        ptx::cp_async(chunk(row, c), x.chunk(there ? row0 + row : 0, there ? c : 0),
                      there ? x.numbers_in(c) * 2 : 0);
      }
    } else {
#pragma unroll 1
      for (int i = thread; i < Rows * chunks; i += Threads) {
        const int row = i / chunks, c = i % chunks, n = row0 + row < end ? x.numbers_in(c) : 0;
        const T* from = x.chunk(row0 + row, c);
        uint16_t number[per_chunk];
#pragma unroll
        for (int e = 0; e < per_chunk; ++e) number[e] = e < n ? from[e * x.column].bits : 0;
        ptx::Words words;
#pragma unroll
        for (int w = 0; w < 4; ++w) words.w[w] = number[2 * w] | uint32_t(number[2 * w + 1]) << 16;
        ptx::store_shared(chunk(row, c), words);
      }
    }
  }

  // What this thread has loaded, times a factor.
  template <int Rows, int Threads> __device__ void multiply(float factor) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < Rows * chunks; i += Threads) {
      const uint32_t at = chunk(i / chunks, i % chunks);
      ptx::Words words = ptx::load_shared(at);
#pragma unroll
      for (uint32_t& w : words.w)
        w = ptx::pack(T{}, factor * number(T{uint16_t(w)}), factor * number(T{uint16_t(w >> 16)}));
      ptx::store_shared(at, words);
    }
  }

  // finish: chunk c of a row to the operand's row r, and of it what the operand has.
  __device__ void store(int row, int c, const HeadRows<T>& x, int64_t r) const {
    const int n = x.numbers_in(c);
    const ptx::Words words = ptx::load_shared(chunk(row, c));
    T* to = x.chunk(r, c);
    if (x.chunked && n == per_chunk) return ptx::store_global(to, words);
#pragma unroll
    for (int e = 0; e < per_chunk; ++e)
      if (e < n) to[e * x.column] = T{uint16_t(words.w[e / 2] >> (e % 2 * 16))};
  }
};

}  // namespace fanano::cuda
