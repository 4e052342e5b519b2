// A tile of rows of Dim numbers of 16 bits in shared memory, in chunks of 16 bytes. ldmatrix reads
// the same chunk of 8 rows at once, which must lie in 8 different groups of banks: chunk c of row r
// stands at place c ^ r % 8. Where rows are an odd number of half lines of 64 bytes, neighbours lie
// in different halves as they are, and pairs of rows have to differ: c ^ r / 2 % 4.
#pragma once

#include <cstdint>

#include "numbers.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/pack.cuh"
#include "ptx/thread.cuh"
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

// The first n numbers of chunk c of a row of an operand (HeadRows, or its like); zeros after them.
template <class X>
__device__ __forceinline__ void read_chunk(const X& x, int64_t r, int c, int n,
                                           uint16_t (&number)[per_chunk]) {
  const auto* from = x.chunk(r, c);
  if (x.chunked && n == per_chunk) {
    const ptx::Words words = ptx::load_global(from);
#pragma unroll
    for (int e = 0; e < per_chunk; ++e) number[e] = uint16_t(words.w[e / 2] >> (e % 2 * 16));
  } else {
#pragma unroll
    for (int e = 0; e < per_chunk; ++e) number[e] = e < n ? from[e * x.column].bits : 0;
  }
}

template <class T, int Dim> struct SwizzledTile {
  static constexpr int chunks = Dim / per_chunk;  // of a row
  static_assert(chunks % 4 == 0 && sizeof(T) == 2);
  static constexpr int bytes(int rows) { return rows * Dim * 2; }

  static constexpr int moved_together = chunks % 8 == 0 ? 8 : 4;  // within each so many chunks

  uint32_t smem;  // address, a multiple of 128

  __device__ uint32_t chunk(int row, int c) const {
    const int moved = chunks % 8 == 0 ? c ^ row % 8 : c ^ row / 2 % 4;
    return smem + (row * chunks + moved) * 16;
  }

  // A lane's chunk, the first or the second of a row: from it, at compile time, an even number of
  // chunks and a multiple of 8 rows on. One register for all of them.
  struct Place {
    uint32_t first;
    __device__ uint32_t on(int rows, int c) const {
      const int within = c % moved_together;
      return (first ^ within * 16) + (rows * chunks + c - within) * 16;
    }
  };
  __device__ Place place(int row, int c) const { return {chunk(row, c)}; }

  // load: so many threads, of which this is one, rows [row0, end) of an operand (HeadRows, or its
  // like); zeros past the end and past the operand's columns. In the background, but for what lies
  // in no chunks: that is gathered. thread_index(): else a loop of loads holds all places in
  // registers.
  template <int Rows, int Threads, class X>
  __device__ void load(const X& x, int64_t row0, int64_t end,
                       int thread = ptx::thread_index()) const {
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
        uint16_t number[per_chunk];
        read_chunk(x, row0 + row, c, n, number);
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
