// Decode's second kernel: the states of a row's splits become its results. A block to a row; so
// that many loads are under way, its threads take several splits at once, each pair of columns by
// itself, and add what they have up at the end.
#pragma once

#include "../cpp/math/mask.hpp"
#include "logits.cuh"
#include "reduce.cuh"
#include "states.cuh"

namespace fanano::cuda {

inline constexpr int combine_threads = 256;

template <class T, int Dim>
__global__ void __launch_bounds__(combine_threads)
    combine_kernel(const __grid_constant__ Problem p, const States states, int64_t first_row) {
  // Split s is taken by part s % parts, at whatever split the row begins.
  constexpr int pairs = Dim / 2, parts = combine_threads / pairs;
  __shared__ float2 o_smem[parts][pairs];
  __shared__ float l_smem[parts], normaliser_smem, of_warp_smem[combine_threads / 32];
  const int64_t number = first_row + blockIdx.x;  // in_grids()
  const int64_t query = number % states.queries, matrix = number / states.queries;
  const int64_t head = matrix % states.heads, batch = matrix / states.heads;
  const Sequence sequence = fanano::sequence(batch, p.shape.queries, p.shape.keys,
                                             p.lengths.queries, p.lengths.keys, p.lengths.q_offset);
  if (sequence.queries > decode_queries || query >= sequence.queries) return;
  const Range splits =
      make_mask(sequence, p.window.left, p.window.right).tiles({query, query + 1}, decode_chunk);
  const float factor = score_constants<float>(p, batch, head, log2e<double>).factor;
  const int64_t first = states.at(batch, head, query, 0);

  float m = -infinity<float>;
  for (int64_t s = splits.begin + threadIdx.x; s < splits.end; s += combine_threads) {
    const float other = states.m_l[first + s].x;
    m = other > m ? other : m;
  }
  m = block_max(m, of_warp_smem);

  // Threads beyond the last part, and those of columns that there are none of, have nothing.
  const int part = threadIdx.x / pairs, c = threadIdx.x % pairs * 2;
  if (part < parts) {
    float2 o{nothing_yet, nothing_yet};
    float l = 0;
    const int64_t begin = splits.begin + (part + parts - splits.begin % parts) % parts;
#pragma unroll 8
    for (int64_t s = begin; s < splits.end; s += parts) {
      const float2 m_l = states.m_l[first + s];
      RowState state{m_l.x, m_l.y};
      const float of_part = merge(state, m, factor);
      l += state.l;
      if (c < states.columns) add_part(o, states.pair(first + s, c), of_part);
    }
    o_smem[part][c / 2] = o;
    if (c == 0) l_smem[part] = l;
  }
  __syncthreads();  // the sums of all parts are there
  if (threadIdx.x == 0) {
    RowState whole{m, 0};
    for (int i = 0; i < parts; ++i) whole.l += l_smem[i];
    normaliser_smem = finish_row(p, batch, head, query, whole, factor);
  }
  __syncthreads();  // and the normaliser
  if (part > 0) return;
  float2 o{nothing_yet, nothing_yet};
#pragma unroll
  for (int i = 0; i < parts; ++i) add_part(o, o_smem[i][c / 2], 1);
  store_results<T>(p, batch, head, query, c, normalised(o, normaliser_smem));
}

}  // namespace fanano::cuda
