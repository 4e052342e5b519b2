// Tiles of 32 rows and 32 columns, which 64 threads multiply by plain fused multiply-adds in the
// accumulator's type: any dtype, any number of columns, any strides.
//
// A thread has 4 rows and 4 columns of a tile of scores, and of results 4 rows and 4 vectors of
// columns. Where results have more columns than that, several blocks make the same scores.
#pragma once

#include "logits.cuh"
#include "ptx/shuffle.cuh"

namespace fanano::cuda {

inline constexpr int plain_rows = 32, plain_keys = 32;  // of a tile: 8 threads down, 8 across
inline constexpr int plain_dim = 32;                    // columns of q and k that are there at once
inline constexpr int plain_threads = 64;

// 16 bytes, which one instruction loads.
template <class A> struct alignas(16) Vector {
  static constexpr int width = 16 / sizeof(A);
  A x[width];
};
// Rows of N numbers and one vector more: the same vector of 8 neighbouring rows lies in 8 different
// groups of banks.
template <class A, int N> using VectorRow = Vector<A>[N / Vector<A>::width + 1];

// Columns of the results that a block computes: 128, or 64 of float64.
template <class A> inline constexpr int plain_columns = 32 * Vector<A>::width;

// Rows of an operand in device memory.
template <class T> struct Rows {
  T* first;
  int64_t stride, column;  // from row to row, and from column to column
  int64_t count;           // that are there
};

// The rows of one head from `row` on.
template <class T>
__device__ __forceinline__ Rows<T> rows_of(const Tensor& t, int64_t batch, int64_t head,
                                           int64_t row, int64_t count) {
  return {at<T>(t, batch, head, row), t.row, t.column, count};
}

// load: numbers of 32 rows into shared memory, times a factor; zeros where [0, rows) x [0, columns)
// ends, up to `filled` columns. Row r goes to place(r). Says whether all of this thread's were
// finite.
template <class T, class A, int N, class To>
__device__ __forceinline__ bool load_tile(Rows<const T> from, int64_t column0, int64_t columns,
                                          int filled, A factor, Vector<A> (&to_smem)[32][N],
                                          To place) {
  bool finite = true;
  for (int c = threadIdx.x % 32; c < filled; c += 32) {
    const int first = threadIdx.x / 32;
    const T* at = from.first + first * from.stride + (column0 + c) * from.column;
#pragma unroll sizeof(A) == sizeof(double) ? 1 : 4  // loads under way; double has no registers left
    for (int r = first; r < 32; r += plain_threads / 32, at += plain_threads / 32 * from.stride) {
      const A x = r < from.count && c < columns ? factor * number(*at) : A(0);
      finite &= is_finite(x);
      to_smem[place(r)][c / Vector<A>::width].x[c % Vector<A>::width] = x;
    }
  }
  return finite;
}

// Places of the rows of a tile: where they are; and of those that go across, row j of which is
// number j % 4 of thread j / 4.
struct Itself {
  __device__ int operator()(int r) const { return r; }
};
struct ByThreads {
  __device__ int operator()(int j) const { return j / 4 + j % 4 * 8; }
};

// The two operands of a product of tiles, some columns of them at a time.
template <class A> struct Operands { VectorRow<A, plain_dim> a[32], b[32]; };

// score: s += a bᵀ, a times a factor. The thread's rows of a are down + 8 r, those of b 4 across +
// c. On return all threads have read the operands, and whatever they had read before.
template <class T, class U, class A>
__device__ __forceinline__ void multiply(Rows<const T> a, Rows<const U> b, int64_t dim, A factor,
                                         Operands<A>& smem, A (&s)[4][4]) {
  constexpr int width = Vector<A>::width;
  const int across = threadIdx.x % 8, down = threadIdx.x / 8;
  for (int64_t d0 = 0; d0 < dim; d0 += plain_dim) {
    const int vectors = int(clamp(dim - d0 + width - 1, 0, plain_dim)) / width;
    load_tile(a, d0, dim - d0, vectors * width, factor, smem.a, Itself());
    load_tile(b, d0, dim - d0, vectors * width, A(1), smem.b, ByThreads());
    __syncthreads();  // the operands are there
#pragma unroll 1
    for (int i = 0; i < vectors; ++i) {
      Vector<A> x[4], y[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) x[n] = smem.a[down + 8 * n][i], y[n] = smem.b[across + 8 * n][i];
#pragma unroll
      for (int e = 0; e < width; ++e)
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
          for (int c = 0; c < 4; ++c) s[r][c] = fma(x[r].x[e], y[c].x[e], s[r][c]);
    }
    __syncthreads();  // and have been read: the next ones may come
  }
}

// Of a row, 4 of whose numbers each of 8 lanes has.
template <class A> __device__ __forceinline__ A largest_of_row(const A (&s)[4]) {
  A largest = -infinity<A>;
#pragma unroll
  for (int c = 0; c < 4; ++c) largest = s[c] > largest ? s[c] : largest;
#pragma unroll
  for (int bits = 1; bits < 8; bits *= 2) {
    const A other = ptx::shuffle_xor(largest, bits);
    largest = other > largest ? other : largest;
  }
  return largest;
}
template <class A> __device__ __forceinline__ A sum_of_row(A x) {
#pragma unroll
  for (int bits = 1; bits < 8; bits *= 2) x += ptx::shuffle_xor(x, bits);
  return x;
}

// accumulate: o += p v, of the vectors of columns that are there. Select: leave out what a row does
// not see, for 0 times a NaN or an infinity is NaN. Of finite values both give the same bits.
template <bool Select, class A, int P, int V>
__device__ __forceinline__ void
accumulate(const Vector<A> (&p_smem)[plain_rows][P], const Vector<A> (&v_smem)[plain_keys][V],
           int down, int across, int columns, A (&o)[4][4][Vector<A>::width]) {
  constexpr int width = Vector<A>::width;
#pragma unroll 1
  for (int j = 0; j < plain_keys; j += width) {
    Vector<A> p[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) p[r] = p_smem[down + 8 * r][j / width];
#pragma unroll
    for (int i = 0; i < width; ++i)
#pragma unroll
      for (int g = 0; g < 4; ++g) {
        if (g * 8 * width >= columns) break;  // for the whole block
        const Vector<A> v = v_smem[j + i][g * 8 + across];
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
          for (int e = 0; e < width; ++e)
            if (!Select || is_seen(p[r].x[i])) o[r][g][e] = fma(p[r].x[i], v.x[e], o[r][g][e]);
      }
  }
}

// The results of a block; only_broken: in the place of what is not finite there. Says whether all
// of this thread's were finite.
template <class Out, class A, int N>
__device__ bool store_tile(const Vector<A> (&from_smem)[plain_rows][N], Rows<Out> to,
                           int64_t column0, int columns, bool only_broken) {
  bool finite = true;
  for (int c = threadIdx.x % 32; c < columns; c += 32)
    for (int r = threadIdx.x / 32; r < to.count; r += plain_threads / 32) {
      const A x = from_smem[r][c / Vector<A>::width].x[c % Vector<A>::width];
      Out& out = to.first[r * to.stride + (column0 + c) * to.column];
      if (!only_broken || !is_finite(number(out))) assign(out, x);
      finite &= is_finite(x);
    }
  return finite;
}

}  // namespace fanano::cuda
