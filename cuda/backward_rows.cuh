// The RowTerms of all query rows, and of them the gradient of sinks. m and the normaliser are those
// of the scores that the other kernels make again, and delta is the sum of p dp itself: lse and out
// were rounded when they were written, and of a large lse the rounding would be one of p.
#pragma once

#include "../cpp/math/online_softmax.hpp"
#include "grid.cuh"
#include "pair_tile.cuh"
#include "reduce.cuh"

namespace fanano::cuda {

// What a sink weighs beside a row whose maximum, in log2 units, weighs 1.
__device__ __forceinline__ double sink_weight(double sink, double m) {
  const double x = sink * log2e<double> - m;
  return x > 1000 ? infinity<double> : exp2_nonpositive(x);
}

template <class A> struct RowMemory {
  Operands<A> operands;
  PairNumbers<A> p;
};

template <class T>
__global__ void __launch_bounds__(plain_threads)
    rows_kernel(const __grid_constant__ Problem p, void* workspace, int64_t first) {
  using A = accumulator_t<T>;
  __shared__ RowMemory<A> smem;
  const Block block(p.shape.heads, p.shape.queries, plain_rows, 1, 1, first);
  const PairHead<T> head(p, block.batch, block.head);
  const int64_t row0 = block.row0, queries = head.sequence.queries;
  const Range rows{row0, clamp(row0 + plain_rows, row0, queries)};
  const Range tiles = rows.size() ? head.mask.tiles(rows, plain_keys) : Range{};
  const A factor = head.logits.constants.factor;
  A m[4], l[4], p_dp[4];  // l and the sum of p dp: of this thread's columns alone
#pragma unroll
  for (int r = 0; r < 4; ++r) m[r] = -infinity<A>, l[r] = p_dp[r] = 0;

  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    const PairTile<T, false> pairs{p, head, row0, tile * plain_keys};
    A s[4][4] = {};
    pairs.score(smem.operands, s);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      bool seen[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) s[r][c] = pairs.logit(s[r][c], r, c, seen[c]);
      const A largest = largest_of_row(s[r]), raised = largest > m[r] ? largest : m[r];
      const A alpha = exp2((m[r] - pivot(raised)) * factor);
      m[r] = raised, l[r] *= alpha, p_dp[r] *= alpha;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const A weight = exp2((s[r][c] - pivot(raised)) * factor);
        l[r] += weight;
        number_of(smem.p, r, c) = seen[c] ? weight : not_seen<A>;
      }
    }
    // Each thread reads its own weights alone.
    A dp[4][4] = {};
    pairs.score_values(smem.operands, dp);
    for_pairs([&](int r, int c) {
      const A weight = number_of(smem.p, r, c);
      if (is_seen(weight)) p_dp[r] = fma(weight, dp[r][c] * pairs.dropped(r, c), p_dp[r]);
    });
  }

#pragma unroll
  for (int r = 0; r < 4; ++r) {
    l[r] = sum_of_row(l[r]), p_dp[r] = sum_of_row(p_dp[r]);
    const int64_t row = row0 + PairTile<T, false>::down(r);
    if (threadIdx.x % 8 != 0 || row >= p.shape.queries) continue;
    RowTerms<A> terms;
    if (row < queries) {
      const double sink = p.score.sinks ? p.score.sinks[head.head] : -infinity<double>;
      terms.m = pivot(m[r]);
      const double all = double(l[r]) + sink_weight(sink, double(terms.m) * double(factor));
      const double inverse = l[r] == 0 ? 0 : 1 / all;
      const Tensor& dlse = p.gradient.dlse;
      double delta = double(p_dp[r]) * inverse;
      if (dlse.data) delta -= double(*at<const A>(dlse, head.batch, head.head, row));
      terms.inverse = A(inverse), terms.delta = A(delta);
    }
    row_terms<A>(workspace, p.shape, head.batch, head.head)[row] = terms;
  }
}

// finish: dsinks, the sum over all rows of a head of - delta times the sink's probability, which is
// 1 beside rows that see nothing or weigh nothing. A block to a head. Problems without rows have no
// sinks: 0.
inline constexpr int sink_threads = 128;
template <class A>
__global__ void __launch_bounds__(sink_threads)
    sinks_kernel(const __grid_constant__ Problem p, void* workspace, int64_t first) {
  __shared__ double warps_smem[sink_threads / 32];
  const int64_t h = first + blockIdx.x;
  const double sink = p.score.sinks ? p.score.sinks[h] : -infinity<double>;
  double sum = 0;
  for (int64_t b = 0; b < p.shape.batch && sink != -infinity<double>; ++b) {
    const Head head(p, b, h);
    const double factor = double(score_constants<A>(p, b, h, log2e<double>).factor);
    const RowTerms<A>* terms = row_terms<A>(workspace, p.shape, b, h);
    for (int64_t i = threadIdx.x; i < head.sequence.queries; i += sink_threads) {
      const RowTerms<A> t = terms[i];
      const double weight = sink_weight(sink, double(t.m) * factor);
      const double probability =
          t.inverse == 0 || weight > 0x1p100 ? 1 : weight * double(t.inverse);
      if (probability != 0) sum -= probability * double(t.delta);
    }
  }
  sum = block_sum(sum, warps_smem);
  if (threadIdx.x == 0) *at<A>(p.gradient.dsinks, 0, h, 0) = A(sum);
}

// Row terms of every problem.
template <class T> cudaError_t launch_rows(const Problem& p, void* workspace, cudaStream_t stream) {
  const Shape& s = p.shape;
  const int64_t rows = s.batch * s.heads * s.queries;
  const int64_t blocks = s.batch * s.heads * Block::blocks_of(s.queries, plain_rows);
  return in_grids(rows_kernel<T>, rows > 0 ? blocks : 0, plain_threads, 0, stream, p, workspace);
}

// dsinks, where they are asked for, once there are row terms.
template <class A>
cudaError_t launch_sinks(const Problem& p, void* workspace, cudaStream_t stream) {
  return in_grids(sinks_kernel<A>, p.gradient.sinks ? p.shape.heads : 0, sink_threads, 0, stream, p,
                  workspace);
}

}  // namespace fanano::cuda
