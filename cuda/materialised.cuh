// The ladder's attention: every score of the problem stands in device memory, the softmax of its
// rows is naive, safe or online, and then the products with v are taken. The yardstick for flash,
// in memory and in time: three kernels, plainly written. Every option but dropout.
//
// Scores are (batch, heads, queries, keys), of the accumulator's type A. A row past its sequence's
// queries has none: zeros come out.
#pragma once

#include "grid.cuh"
#include "logits.cuh"
#include "place.cuh"
#include "softmax.cuh"

namespace fanano::cuda {

inline constexpr int tile = 16;  // of rows and of columns that a block of 256 threads computes

template <class A>
__device__ A* scores_of(A* all, const Shape& s, int64_t batch, int64_t head, int64_t row) {
  return all + ((batch * s.heads + head) * s.queries + row) * s.keys;
}

// load, score, mask: S, the logits, -inf where a row does not see
template <class T>
__global__ void __launch_bounds__(tile* tile)
    scores_kernel(const __grid_constant__ Problem p, accumulator_t<T>* scores, int64_t first) {
  using A = accumulator_t<T>;
  // A column more than the tile has: the threads of a warp read a column, and so 32 banks.
  __shared__ A q_smem[tile][tile + 1], k_smem[tile][tile + 1];
  const Place place(p, tile, p.shape.keys, tile, first);
  const int x = threadIdx.x, y = threadIdx.y;
  const int64_t row = place.row0 + y, column = place.column0 + x, key = place.column0 + y;
  const Logits<A> logits(p, place.batch, place.head, 1);
  const T* q = at<const T>(p.q, place.batch, place.head, row);
  const T* k = at<const T>(p.k, place.batch, place.kv_head, key);

  A s = 0;
  for (int64_t d0 = 0; d0 < p.shape.dim; d0 += tile) {
    const int64_t d = d0 + x;
    const bool in_row = d < p.shape.dim;
    q_smem[y][x] = in_row && row < place.sequence.queries
                       ? logits.constants.scale.sign * number(q[d * p.q.column])
                       : A(0);
    k_smem[y][x] = in_row && key < place.sequence.keys ? number(k[d * p.k.column]) : A(0);
    __syncthreads();  // the tiles are there
#pragma unroll
    for (int i = 0; i < tile; ++i) s = fma(q_smem[y][i], k_smem[x][i], s);
    __syncthreads();  // and have been read: the next ones may come
  }
  if (row >= place.sequence.queries || column >= p.shape.keys) return;
  bool seen = place.mask.visible(row, column);
  const Slope<A> slope = logits.slope(place.mask, row, place.column0);
  scores_of(scores, p.shape, place.batch, place.head, row)[column] =
      logits.logit(s, slope, row, place.column0, x, seen) * logits.constants.factor;
}

// The row with a logit that owns no value, -inf for none; naive subtracts no maximum.
template <class A>
__device__ OnlineSoftmax<A> with_sink(OnlineSoftmax<A> state, bool naive, double sink) {
  if (sink == -infinity<double>) return state;
  if (naive) return {state.m, state.l + exp(A(sink))};
  return merge(state, {A(sink), 1});
}

// absorb: P = softmax of the rows, in place. A block to a row.
template <class T>
__global__ void __launch_bounds__(softmax_threads)
    probabilities_kernel(const __grid_constant__ Problem p, accumulator_t<T>* scores,
                         int64_t first) {
  using A = accumulator_t<T>;
  __shared__ WarpNumbers<A> smem;
  const Shape& s = p.shape;
  const int64_t block = first + blockIdx.x, matrix = block / s.queries, row = block % s.queries;
  const int64_t batch = matrix / s.heads, head = matrix % s.heads;
  A* lse = p.lse.data ? at<A>(p.lse, batch, head, row) : nullptr;
  if (p.lengths.queries && row >= p.lengths.queries[batch]) {
    if (lse && threadIdx.x == 0) *lse = -infinity<A>;
    return;
  }
  Row<A> x{scores + block * s.keys, 1, s.keys};
  OnlineSoftmax<A> state = sums(p.algorithm, x, smem);
  // A row that sees nothing gives zeros: the naive formula's 0 / 0 is for softmax() to show.
  const bool naive = p.algorithm == Algorithm::naive && state.l != 0;
  state = with_sink(state, p.algorithm == Algorithm::naive,
                    p.score.sinks ? p.score.sinks[head] : -infinity<double>);
  if (lse && threadIdx.x == 0) *lse = A(state.lse());
  normalise<A>(state, naive, {x.data, 1, x.n}, x);
}

// accumulate, finish: O = P v. What a row does not see is left out, whatever its value.
template <class T>
__global__ void __launch_bounds__(tile* tile)
    product_kernel(const __grid_constant__ Problem p, const accumulator_t<T>* scores,
                   int64_t first) {
  using A = accumulator_t<T>;
  __shared__ A p_smem[tile][tile], v_smem[tile][tile];
  const Place place(p, tile, p.shape.value_dim, tile, first);
  const int x = threadIdx.x, y = threadIdx.y;
  const int64_t row = place.row0 + y, column = place.column0 + x;
  const A* probabilities = scores_of(scores, p.shape, place.batch, place.head, row);
  const Elements elements(p, place.batch, place.head);

  A o = 0;
  for (int64_t j0 = 0; j0 < place.sequence.keys; j0 += tile) {
    const int64_t j = j0 + x, key = j0 + y;
    const bool seen =
        row < place.sequence.queries && place.mask.visible(row, j) && !elements.hides<A>(row, j);
    p_smem[y][x] = seen ? probabilities[j] : not_seen<A>;
    v_smem[y][x] =
        key < place.sequence.keys && column < p.shape.value_dim
            ? number(at<const T>(p.v, place.batch, place.kv_head, key)[column * p.v.column])
            : A(0);
    __syncthreads();  // the tiles are there
#pragma unroll
    for (int i = 0; i < tile; ++i)
      if (is_seen(p_smem[y][i])) o = fma(p_smem[y][i], v_smem[i][x], o);
    __syncthreads();  // and have been read: the next ones may come
  }
  if (row >= p.shape.queries || column >= p.shape.value_dim) return;
  if (p.out_dtype == p.dtype)
    assign(at<T>(p.out, place.batch, place.head, row)[column * p.out.column], o);
  else
    assign(at<A>(p.out, place.batch, place.head, row)[column * p.out.column], o);
}

template <class T> cudaError_t materialised(const Problem& p, void* scratch, cudaStream_t stream) {
  const Shape& s = p.shape;
  auto scores = static_cast<accumulator_t<T>*>(scratch);
  const int64_t rows = s.batch * s.heads * s.queries;
  if (rows == 0) return cudaSuccess;
  const dim3 threads(tile, tile);
  auto blocks = [&](int64_t columns) { return columns ? Place::count(s, tile, columns, tile) : 0; };
  cudaError_t error = in_grids(scores_kernel<T>, blocks(s.keys), threads, 0, stream, p, scores);
  if (!error)
    error = in_grids(probabilities_kernel<T>, rows, softmax_threads, 0, stream, p, scores);
  if (!error)
    error = in_grids(product_kernel<T>, blocks(s.value_dim), threads, 0, stream, p, scores);
  return error;
}

}  // namespace fanano::cuda
