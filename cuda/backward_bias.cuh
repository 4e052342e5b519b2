// dbias, the gradient of an additive mask: that of the logits, summed over all that the mask was
// broadcast to. A block owns a tile of the mask, or all of an axis that is one in it, and walks
// over what its pairs are, in one order: nothing of the size of the scores is stored.
#pragma once

#include <new>

#include "grid.cuh"
#include "pair_tile.cuh"

namespace fanano::cuda {

// How many blocks each axis of the mask is cut into: one where it is one.
struct BiasBlocks {
  int64_t tiles, rows, heads, batches;

  __host__ __device__ explicit BiasBlocks(const Problem& p) {
    const Gradient& g = p.gradient;
    const Shape& s = p.shape;
    tiles = g.bias_column ? (s.keys + plain_keys - 1) / plain_keys : 1;
    rows = g.bias_row ? (s.queries + plain_rows - 1) / plain_rows : 1;
    heads = g.bias_head ? s.heads : 1, batches = g.bias_batch ? s.batch : 1;
  }
};

// What a block adds up: all of an axis along which the mask was broadcast, a part of the others.
struct BiasPart {
  Range tiles, rows, heads, batches;  // the first two by tiles

  __device__ BiasPart(const Problem& p, int64_t first) {
    const BiasBlocks blocks(p);
    const Shape& s = p.shape;
    int64_t block = first + blockIdx.x;
    auto next = [&](bool own, int64_t count, int64_t all) {
      const int64_t i = block % count;
      block /= count;
      return own ? Range{i, i + 1} : Range{0, all};
    };
    const Gradient& g = p.gradient;
    tiles = next(g.bias_column, blocks.tiles, (s.keys + plain_keys - 1) / plain_keys);
    rows = next(g.bias_row, blocks.rows, (s.queries + plain_rows - 1) / plain_rows);
    heads = next(g.bias_head, blocks.heads, s.heads);
    batches = next(g.bias_batch, blocks.batches, s.batch);
  }
};

// The head of the moment stands there, too: held in registers, it would leave too few.
template <class T, class A = accumulator_t<T>> struct BiasMemory {
  Operands<A> operands;
  PairNumbers<A> p;
  union { PairHead<T> head; };  // made when its turn comes
  __device__ BiasMemory() {}
};

// Four blocks to a multiprocessor: ptxas by itself makes room for six, and float64 spills for it.
template <class T>
__global__ void __launch_bounds__(plain_threads, 4)
    bias_kernel(const __grid_constant__ Problem p, void* workspace, int64_t first) {
  using A = accumulator_t<T>;
  __shared__ BiasMemory<T> smem;
  const BiasPart part(p, first);
  A sums[4][4] = {};
  for (int64_t b = part.batches.begin; b < part.batches.end; ++b)
    for (int64_t h = part.heads.begin; h < part.heads.end; ++h) {
      __syncthreads();  // all are done with the last head
      if (threadIdx.x == 0) new (&smem.head) PairHead<T>(p, b, h);
      __syncthreads();  // this one is there
      const PairHead<T>& head = smem.head;
      const RowTerms<A>* terms = row_terms<A>(workspace, p.shape, b, h);
      for (int64_t i = part.rows.begin; i < part.rows.end; ++i) {
        const int64_t row0 = i * plain_rows;
        const Range rows{row0, clamp(row0 + plain_rows, row0, head.sequence.queries)};
        const Range seen = rows.size() ? head.mask.tiles(rows, plain_keys) : Range{};
        const int64_t first = clamp(seen.begin, part.tiles.begin, part.tiles.end);
        const int64_t end = clamp(seen.end, part.tiles.begin, part.tiles.end);
        for (int64_t tile = first; tile < end; ++tile) {
          const PairTile<T, false> pairs{p, head, row0, tile * plain_keys};
          A s[4][4] = {}, dp[4][4] = {};
          pairs.score(smem.operands, s);
          for_pairs([&](int r, int c) {
            number_of(smem.p, r, c) = pairs.probability(s[r][c], terms, r, c);
          });
          pairs.score_values(smem.operands, dp);
          for_pairs([&](int r, int c) {
            sums[r][c] += pairs.gradient(number_of(smem.p, r, c), dp[r][c], terms, r, c);
          });
        }
      }
    }

  for_pairs([&](int r, int c) { number_of(smem.p, r, c) = sums[r][c]; });
  __syncthreads();  // the sums of all are there
  // finish: the rows and columns that are one in the mask become one.
  const Gradient& g = p.gradient;
  const int64_t row0 = part.rows.begin * plain_rows, j0 = part.tiles.begin * plain_keys;
  const int down = g.bias_row ? int(clamp(p.shape.queries - row0, 0, plain_rows)) : 1;
  const int across = g.bias_column ? int(clamp(p.shape.keys - j0, 0, plain_keys)) : 1;
  const Elements elements(p, 0, 0);
  for (int n = threadIdx.x; n < down * across; n += plain_threads) {
    const int i = n / across, j = n % across;
    double sum = 0;
    for (int r = i; r < (g.bias_row ? i + 1 : plain_rows); ++r)
      for (int c = j; c < (g.bias_column ? j + 1 : plain_keys); ++c)
        sum += double(smem.p[r][c / Vector<A>::width].x[c % Vector<A>::width]);
    elements.with_type([&]<class E>() {
      if constexpr (sizeof(E) > 1) {  // a boolean mask has none
        E* to = at<E>(g.dbias, g.bias_batch ? part.batches.begin : 0,
                      g.bias_head ? part.heads.begin : 0, g.bias_row ? row0 + i : 0);
        assign(to[g.bias_column ? (j0 + j) * g.dbias.column : 0], A(sum));
      }
    });
  }
}

// Where it is asked for, once there are row terms.
template <class T> cudaError_t launch_bias(const Problem& p, void* workspace, cudaStream_t stream) {
  if (!p.gradient.bias) return cudaSuccess;
  const BiasBlocks n(p);
  const int64_t blocks = n.tiles * n.rows * n.heads * n.batches;
  return in_grids(bias_kernel<T>, blocks, plain_threads, 0, stream, p, workspace);
}

}  // namespace fanano::cuda
