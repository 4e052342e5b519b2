// Flash attention, forward, for all that no special kernel takes: every dtype, every number of
// columns, any strides, every option. Tiles of K and V stream past a block of query rows; the
// softmax is online, and nothing of size queries x keys exists (Dao 2023, algorithm 1). Plain fused
// multiply-adds in the accumulator's type.
//
// A thread has 4 rows and 4 columns of a tile of scores, and of the results 4 rows and 4 vectors of
// columns. Where values have more columns than that, several blocks make the same scores.
#pragma once

#include "../cpp/math/online_softmax.hpp"
#include "grid.cuh"
#include "kept.cuh"
#include "kernels.hpp"
#include "logits.cuh"
#include "place.cuh"
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

// load: numbers of 32 rows into shared memory, times a factor; zeros where [0, rows) x [0, columns)
// ends, up to `filled` columns. Row r goes to place(r). Says whether all of this thread's were
// finite.
template <class T, class A, int N, class To>
__device__ __forceinline__ bool load_tile(const T* from, int64_t row_stride, int64_t column_stride,
                                          int64_t rows, int64_t columns, int filled, A factor,
                                          Vector<A> (&to_smem)[32][N], To place) {
  bool finite = true;
  for (int c = threadIdx.x % 32; c < filled; c += 32) {
    const int first = threadIdx.x / 32;
    const T* at = from + first * row_stride + c * column_stride;
#pragma unroll sizeof(A) == sizeof(double) ? 1 : 4  // loads under way; double has no registers left
    for (int r = first; r < 32; r += plain_threads / 32, at += plain_threads / 32 * row_stride) {
      const A x = r < rows && c < columns ? factor * number(*at) : A(0);
      finite &= is_finite(x);
      to_smem[place(r)][c / Vector<A>::width].x[c % Vector<A>::width] = x;
    }
  }
  return finite;
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

// Weights are at most 1, but o sums them before they are normalised, so values near the end of the
// range of A may overflow although the result would not. Blocks where something did not come out
// finite compute once more, all weights this many powers of 2 smaller, and replace what was not.
// Not at first: there, tiny values would be lost.
inline constexpr int overflow_headroom = 40;

// 2^x. With headroom, what is above -inf weighs something: 0 times an infinity would be NaN.
template <class A> __device__ __forceinline__ A power(A x, A headroom) {
  if (headroom != 0 && x != -infinity<A>) x = x < least_exponent<A> ? least_exponent<A> : x;
  return exp2(x);
}

// The results of the block; only_broken: in the place of what is not finite there. Says whether all
// of this thread's were finite.
template <class Out, class A, int N>
__device__ bool store_tile(const Vector<A> (&from_smem)[plain_rows][N], const Tensor& to,
                           const Place& place, int64_t rows, int columns, bool only_broken) {
  bool finite = true;
  for (int c = threadIdx.x % 32; c < columns; c += 32)
    for (int r = threadIdx.x / 32; r < rows; r += plain_threads / 32) {
      const A x = from_smem[r][c / Vector<A>::width].x[c % Vector<A>::width];
      Out& out =
          at<Out>(to, place.batch, place.head, place.row0 + r)[(place.column0 + c) * to.column];
      if (!only_broken || !is_finite(number(out))) assign(out, x);
      finite &= is_finite(x);
    }
  return finite;
}

template <class A> struct PlainMemory {
  VectorRow<A, plain_dim> q[plain_rows], k[plain_keys];
  VectorRow<A, plain_keys> p[plain_rows];
  VectorRow<A, plain_columns<A>> v[plain_keys];
  A m[plain_rows], l[plain_rows], factor[plain_rows];
};

template <class T>
__global__ void __launch_bounds__(plain_threads)
    flash_plain_kernel(const __grid_constant__ Problem p, int64_t first) {
  using A = accumulator_t<T>;
  __shared__ PlainMemory<A> smem;
  constexpr int width = Vector<A>::width;
  const Place place(p, plain_rows, p.shape.value_dim, plain_columns<A>, first);
  const int across = threadIdx.x % 8, down = threadIdx.x / 8;
  const int64_t row0 = place.row0, queries = place.sequence.queries;
  const Range rows{row0, clamp(row0 + plain_rows, row0, queries)};
  const int columns = int(clamp(p.shape.value_dim - place.column0, 0, plain_columns<A>));
  const int filled = (columns + 8 * width - 1) / (8 * width) * (8 * width);
  const Range tiles = rows.size() ? place.mask.tiles(rows, plain_keys) : Range{};
  const Logits<A> logits(p, place.batch, place.head, log2e<double>);
  const Kept kept(p.dropout, place.batch, place.head);
  const A factor = logits.constants.factor;
  auto itself = [](int r) { return r; };
  // Key j of a tile is number j % 4 of thread j / 4.
  auto by_threads = [](int j) { return j / 4 + j % 4 * 8; };

  bool again = false;
  do {
    const A headroom = again ? A(overflow_headroom) : A(0);
    A o[4][4][width] = {}, m[4], l[4];  // l: of this thread's columns alone
#pragma unroll
    for (int r = 0; r < 4; ++r) m[r] = -infinity<A>, l[r] = 0;

    for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const int64_t j0 = tile * plain_keys, keys = clamp(place.sequence.keys - j0, 0, plain_keys);
      // Made anew for each tile: held, they would be registers that o and s need.
      const T* q = at<const T>(p.q, place.batch, place.head, row0);
      const T* k = at<const T>(p.k, place.batch, place.kv_head, j0);
      const T* v = at<const T>(p.v, place.batch, place.kv_head, j0) + place.column0 * p.v.column;

      // load, score: S = Q Kᵀ
      A s[4][4] = {};
      for (int64_t d0 = 0; d0 < p.shape.dim; d0 += plain_dim) {
        const int64_t dim = p.shape.dim - d0;
        const int vectors = int(clamp(dim + width - 1, 0, plain_dim)) / width;
        load_tile(q + d0 * p.q.column, p.q.row, p.q.column, rows.size(), dim, vectors * width,
                  logits.constants.scale.sign, smem.q, itself);
        load_tile(k + d0 * p.k.column, p.k.row, p.k.column, keys, dim, vectors * width, A(1),
                  smem.k, by_threads);
        __syncthreads();  // Q and K are there
#pragma unroll 1
        for (int i = 0; i < vectors; ++i) {
          Vector<A> a[4], b[4];
#pragma unroll
          for (int x = 0; x < 4; ++x)
            a[x] = smem.q[down + 8 * x][i], b[x] = smem.k[across + 8 * x][i];
#pragma unroll
          for (int e = 0; e < width; ++e)
#pragma unroll
            for (int r = 0; r < 4; ++r)
#pragma unroll
              for (int c = 0; c < 4; ++c) s[r][c] = fma(a[r].x[e], b[c].x[e], s[r][c]);
        }
        __syncthreads();  // and have been read, as has the last V: the next ones may come
      }
      const bool finite =
          load_tile(v, p.v.row, p.v.column, keys, columns, filled, A(1), smem.v, itself);

      const bool whole = rows.size() == plain_rows && place.mask.whole(rows, {j0, j0 + plain_keys});
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        // mask: the logits, -inf where the row does not see
        const int64_t row = row0 + down + 8 * r;
        const Slope<A> slope = logits.slope(place.mask, row, j0);
        bool seen[4];
        A largest = -infinity<A>;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int j = across * 4 + c;
          seen[c] = whole || (row < queries && place.mask.visible(row, j0 + j));
          s[r][c] = logits.logit(s[r][c], slope, row, j0, j, seen[c]);
          largest = s[r][c] > largest ? s[r][c] : largest;
        }
        // absorb: m, l; S becomes P
#pragma unroll
        for (int bits = 1; bits < 8; bits *= 2) {  // 8 lanes have the row
          const A other = ptx::shuffle_xor(largest, bits);
          largest = other > largest ? other : largest;
        }
        const A raised = largest > m[r] ? largest : m[r];
        const A alpha = power((m[r] - pivot(raised)) * factor, headroom);
        m[r] = raised, l[r] *= alpha;
#pragma unroll
        for (int g = 0; g < 4; ++g)
#pragma unroll
          for (int e = 0; e < width; ++e) o[r][g][e] *= alpha;
        const unsigned four = kept.on ? kept.of_four(row, j0 + across * 4) : ~0u;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const A weight = power((s[r][c] - pivot(raised)) * factor - headroom, headroom);
          l[r] += weight;
          s[r][c] = !seen[c] ? not_seen<A> : four >> c & 1 ? weight : A(0);
          const int j = across * 4 + c;
          smem.p[down + 8 * r][j / width].x[j % width] = s[r][c];
        }
      }

      // accumulate: O += P V
      if (__syncthreads_and(finite))  // P and V are there; is all of V finite?
        accumulate<false>(smem.p, smem.v, down, across, columns, o);
      else
        accumulate<true>(smem.p, smem.v, down, across, columns, o);
    }

    // finish: o / l and lse. A thread to a row makes the factor and has the sink join.
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int bits = 1; bits < 8; bits *= 2) l[r] += ptx::shuffle_xor(l[r], bits);
      if (across == 0) smem.m[down + 8 * r] = m[r], smem.l[down + 8 * r] = l[r];
    }
    __syncthreads();  // m and l are there
    if (threadIdx.x < plain_rows) {
      const int64_t row = row0 + threadIdx.x;
      const double power_back = again ? double(int64_t(1) << overflow_headroom) : 1;
      const double sink =
          p.score.sinks && row < queries ? p.score.sinks[place.head] : -infinity<double>;
      OnlineSoftmax<double> state{double(smem.m[threadIdx.x]) * double(factor) * ln2<double>,
                                  double(smem.l[threadIdx.x]) * power_back};
      double scale = power_back * kept_factor(p.dropout.p);
      if (sink != -infinity<double>) {
        const double m = state.m;
        state = merge(state, {sink, 1});
        scale *= exp(m - state.m);
      }
      smem.factor[threadIdx.x] = A(scale * state.inverse());
      if (p.lse.data && place.column0 == 0 && row < p.shape.queries && !again)
        *at<A>(p.lse, place.batch, place.head, row) = A(state.lse());
    }
    __syncthreads();  // the factors are there
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const A normaliser = smem.factor[down + 8 * r];
#pragma unroll
      for (int g = 0; g < 4; ++g)
#pragma unroll
        for (int e = 0; e < width; ++e)
          smem.v[down + 8 * r][g * 8 + across].x[e] = rescaled(o[r][g][e], normaliser);
    }
    __syncthreads();  // the results are there, in the place of V
    const int64_t here = clamp(p.shape.queries - row0, 0, plain_rows);
    const bool finite = p.out_dtype == p.dtype
                            ? store_tile<T>(smem.v, p.out, place, here, columns, again)
                            : store_tile<A>(smem.v, p.out, place, here, columns, again);
    again = !__syncthreads_and(finite) && !again;
  } while (again);
}

// Every problem of its dtype.
template <class T> bool flash_plain_takes(const Problem&) { return true; }

template <class T> cudaError_t flash_plain(const Problem& p, cudaStream_t stream) {
  using A = accumulator_t<T>;
  if (p.shape.batch * p.shape.heads * p.shape.queries == 0) return cudaSuccess;
  const int64_t blocks = Place::count(p.shape, plain_rows, p.shape.value_dim, plain_columns<A>);
  return in_grids(blocks, [&](unsigned n, int64_t first) {
    flash_plain_kernel<T><<<n, plain_threads, 0, stream>>>(p, first);
  });
}

}  // namespace fanano::cuda
