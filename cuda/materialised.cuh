// The ladder's attention: every score of the problem stands in device memory, the softmax of its
// rows is naive, safe or online, and then the products with v are taken. The yardstick for flash,
// in memory and in time: three kernels, plainly written, in float32.
//
// Scores are (batch, heads, queries, keys). A row past its sequence's queries has none: zeros come
// out.
#pragma once

#include "../cpp/math/mask.hpp"
#include "../cpp/math/score.hpp"
#include "softmax.cuh"

namespace fanano::cuda {

inline constexpr int tile = 16;  // of rows and of columns that a block of 256 threads computes

inline __host__ __device__ int64_t tiles_of(int64_t n) { return (n + tile - 1) / tile; }

// Which row and column of which matrix a thread computes: blocks are numbered columns first.
struct Place {
  int64_t batch, head, kv_head, row0, column0;
  Sequence sequence;
  Mask mask;

  __device__ Place(const Problem& p, int64_t rows, int64_t columns) {
    int64_t block = blockIdx.x, across = tiles_of(columns), down = tiles_of(rows);
    column0 = block % across * tile, block /= across;
    row0 = block % down * tile, block /= down;
    head = block % p.shape.heads, batch = block / p.shape.heads;
    kv_head = head / (p.shape.heads / p.shape.kv_heads);
    sequence = fanano::sequence(batch, p.shape.queries, p.shape.keys, p.lengths.queries,
                                p.lengths.keys, p.lengths.q_offset);
    mask = make_mask(sequence, p.window.left, p.window.right);
  }
  __device__ float* scores(float* all, const Shape& s, int64_t row) const {
    return all + ((batch * s.heads + head) * s.queries + row) * s.keys;
  }
};

// load, score, mask: S, the logits, -inf where a row does not see
template <class T>
__global__ void __launch_bounds__(tile* tile)
    scores_kernel(const __grid_constant__ Problem p, float* scores) {
  // A column more than the tile has: the threads of a warp read a column, and so 32 banks.
  __shared__ float q_smem[tile][tile + 1], k_smem[tile][tile + 1];
  const Place place(p, p.shape.queries, p.shape.keys);
  const int x = threadIdx.x, y = threadIdx.y;
  const int64_t row = place.row0 + y, column = place.column0 + x, key = place.column0 + y;
  const Scale<float> scale = split_scale<float>(p.score.scale);
  const T* q = at<const T>(p.q, place.batch, place.head, row);
  const T* k = at<const T>(p.k, place.batch, place.kv_head, key);

  float s = 0;
  for (int64_t d0 = 0; d0 < p.shape.dim; d0 += tile) {
    const int64_t d = d0 + x;
    const bool in_row = d < p.shape.dim;
    q_smem[y][x] =
        in_row && row < place.sequence.queries ? scale.sign * number(q[d * p.q.column]) : 0;
    k_smem[y][x] = in_row && key < place.sequence.keys ? number(k[d * p.k.column]) : 0;
    __syncthreads();  // the tiles are there
#pragma unroll
    for (int i = 0; i < tile; ++i) s = __fmaf_rn(q_smem[y][i], k_smem[x][i], s);
    __syncthreads();  // and have been read: the next ones may come
  }
  if (row < place.sequence.queries && column < p.shape.keys)
    place.scores(scores, p.shape, row)[column] =
        place.mask.visible(row, column) ? s * scale.power * scale.size : -infinity<float>;
}

// absorb: P = softmax of the rows, in place. A block to a row.
template <class T>
__global__ void __launch_bounds__(softmax_threads)
    probabilities_kernel(const __grid_constant__ Problem p, float* scores) {
  __shared__ WarpNumbers smem;
  const Shape& s = p.shape;
  const int64_t matrix = blockIdx.x / s.queries, row = blockIdx.x % s.queries;
  const int64_t batch = matrix / s.heads, head = matrix % s.heads;
  float* lse = p.lse.data ? at<float>(p.lse, batch, head, row) : nullptr;
  if (p.lengths.queries && row >= p.lengths.queries[batch]) {
    if (lse && threadIdx.x == 0) *lse = -infinity<float>;
    return;
  }
  Row<float> x{scores + blockIdx.x * s.keys, 1, s.keys};
  OnlineSoftmax<float> state = sums(p.algorithm, x, smem);
  if (lse && threadIdx.x == 0) *lse = float(state.lse());
  // A row that sees nothing gives zeros: the naive formula's 0 / 0 is for softmax() to show.
  bool naive = p.algorithm == Algorithm::naive && state.l != 0;
  normalise<float>(state, naive, {x.data, 1, x.n}, x);
}

// accumulate, finish: O = P v. What a row does not see is left out, whatever its value.
template <class T>
__global__ void __launch_bounds__(tile* tile)
    product_kernel(const __grid_constant__ Problem p, const float* scores) {
  __shared__ float p_smem[tile][tile], v_smem[tile][tile];
  const Place place(p, p.shape.queries, p.shape.value_dim);
  const int x = threadIdx.x, y = threadIdx.y;
  const int64_t row = place.row0 + y, column = place.column0 + x;
  const float* probabilities = place.scores(const_cast<float*>(scores), p.shape, row);

  float o = 0;
  for (int64_t j0 = 0; j0 < place.sequence.keys; j0 += tile) {
    const int64_t j = j0 + x, key = j0 + y;
    p_smem[y][x] = row < place.sequence.queries && j < place.sequence.keys ? probabilities[j] : 0;
    v_smem[y][x] =
        key < place.sequence.keys && column < p.shape.value_dim
            ? number(at<const T>(p.v, place.batch, place.kv_head, key)[column * p.v.column])
            : 0;
    __syncthreads();  // the tiles are there
#pragma unroll
    for (int i = 0; i < tile; ++i)
      if (place.mask.visible(row, j0 + i)) o = __fmaf_rn(p_smem[y][i], v_smem[i][x], o);
    __syncthreads();  // and have been read: the next ones may come
  }
  if (row >= p.shape.queries || column >= p.shape.value_dim) return;
  if (row >= place.sequence.queries) o = 0;
  if (p.out_dtype == p.dtype)
    assign(at<T>(p.out, place.batch, place.head, row)[column * p.out.column], o);
  else
    at<float>(p.out, place.batch, place.head, row)[column * p.out.column] = o;
}

template <class T> cudaError_t materialised(const Problem& p, float* scores, cudaStream_t stream) {
  const Shape& s = p.shape;
  const int64_t matrices = s.batch * s.heads;
  if (matrices * s.queries == 0) return cudaSuccess;
  const dim3 threads(tile, tile);
  if (s.keys > 0)
    scores_kernel<T>
        <<<unsigned(matrices * tiles_of(s.queries) * tiles_of(s.keys)), threads, 0, stream>>>(
            p, scores);
  probabilities_kernel<T>
      <<<unsigned(matrices * s.queries), softmax_threads, 0, stream>>>(p, scores);
  if (s.value_dim > 0)
    product_kernel<T>
        <<<unsigned(matrices * tiles_of(s.queries) * tiles_of(s.value_dim)), threads, 0, stream>>>(
            p, scores);
  return cudaGetLastError();
}

}  // namespace fanano::cuda
