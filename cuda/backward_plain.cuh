// Flash attention, backward, for all that no special kernel takes: every dtype, every number of
// columns, any strides, every option. A kernel for each gradient makes the probabilities and what
// it needs of them again, tile by tile (Dao et al. 2022, algorithm 4), and a block owns what it
// writes: a query's dq is summed over keys, dk and dv of a key over the query heads that share it
// and their rows, in one order.
//
// All three are one product of tiles, o += weights values:
//
//   dq = dS K       rows are queries      dS = P (dP - delta), dP = dO Vᵀ
//   dk = dSᵀ Q      rows are keys
//   dv = Pᵀ dO      rows are keys, P without what dropout drops
#pragma once

#include "backward_bias.cuh"
#include "backward_rows.cuh"
#include "kernels.hpp"

namespace fanano::cuda {

enum class Of { q, k, v };

template <class A> struct GradientMemory {
  Operands<A> operands;
  PairNumbers<A> p;
  VectorRow<A, plain_columns<A>> values[plain_keys];
};

// Columns of the result that a block makes, and of how many of them vectors are filled.
template <class A> struct Columns {
  int64_t first;
  int count, filled;

  __device__ Columns(int64_t first_, int64_t all) : first(first_) {
    constexpr int together = 8 * Vector<A>::width;
    count = int(clamp(all - first, 0, plain_columns<A>));
    filled = (count + together - 1) / together * together;
  }
};

// One tile of pairs.
template <Of of, class T, class A = accumulator_t<T>>
__device__ __forceinline__ void add_pairs(const PairTile<T, of != Of::q>& pairs,
                                          const RowTerms<A>* terms, Columns<A> columns,
                                          GradientMemory<A>& smem, A (&o)[4][4][Vector<A>::width]) {
  // load, score: S. On return the last values have been read, too.
  A s[4][4] = {};
  pairs.score(smem.operands, s);
  bool finite;
  auto load = [&](auto rows) {
    finite =
        load_tile(rows, columns.first, columns.count, columns.filled, A(1), smem.values, Itself());
  };
  if constexpr (of == Of::q)
    load(pairs.k());
  else if constexpr (of == Of::k)
    load(pairs.q());
  else
    with_out<T>(pairs.p, [&]<class Out>() { load(pairs.template dout<Out>()); });

  // mask, absorb: S becomes P, and that becomes dS, times what a softcap's argument changes by. A
  // thread reads its own numbers alone.
  for_pairs([&](int r, int c) {
    A& weight = number_of(smem.p, r, c);
    weight = pairs.probability(s[r][c], terms, r, c);
    if (is_seen(weight)) weight *= of == Of::v ? pairs.dropped(r, c) : pairs.slope(s[r][c]);
  });
  if constexpr (of != Of::v) {
    A dp[4][4] = {};
    pairs.score_values(smem.operands, dp);
    for_pairs([&](int r, int c) {
      A& weight = number_of(smem.p, r, c);
      weight = pairs.gradient(weight, dp[r][c], terms, r, c);
    });
  }

  // accumulate
  const int down = threadIdx.x / 8, across = threadIdx.x % 8;
  if (__syncthreads_and(finite))  // weights and values are there; are these finite?
    accumulate<false>(smem.p, smem.values, down, across, columns.count, o);
  else
    accumulate<true>(smem.p, smem.values, down, across, columns.count, o);
}

// finish: 32 rows of the result from row0 on, times the scale where it is one of scores.
template <Of of, class T, class A = accumulator_t<T>>
__device__ __forceinline__ void
finish(const Problem& p, const Tensor& to, const Block& block, int64_t all_rows, Columns<A> columns,
       GradientMemory<A>& smem, const A (&o)[4][4][Vector<A>::width]) {
  constexpr int width = Vector<A>::width;
  const Scale<A> scale = of == Of::v ? Scale<A>{} : split_scale<A>(p.score.scale);
  const int down = threadIdx.x / 8, across = threadIdx.x % 8;
  __syncthreads();  // the last values have been read
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int g = 0; g < 4; ++g)
#pragma unroll
      for (int e = 0; e < width; ++e)
        smem.values[down + 8 * r][g * 8 + across].x[e] =
            o[r][g][e] * scale.power * (scale.sign * scale.size);
  __syncthreads();  // the results are there, in the place of values
  const int64_t here = clamp(all_rows - block.row0, 0, plain_rows);
  store_tile(smem.values, rows_of<T>(to, block.batch, block.head, block.row0, here), columns.first,
             columns.count, false);
}

template <class T>
__global__ void __launch_bounds__(plain_threads)
    dq_kernel(const __grid_constant__ Problem p, void* workspace, int64_t first) {
  using A = accumulator_t<T>;
  __shared__ GradientMemory<A> smem;
  const Shape& s = p.shape;
  const Block block(s.heads, s.queries, plain_rows, s.dim, plain_columns<A>, first);
  const Columns<A> columns(block.column0, s.dim);
  const PairHead<T> head(p, block.batch, block.head);
  const RowTerms<A>* terms = row_terms<A>(workspace, s, block.batch, block.head);
  const int64_t row0 = block.row0;
  const Range rows{row0, clamp(row0 + plain_rows, row0, head.sequence.queries)};
  const Range tiles = rows.size() ? head.mask.tiles(rows, plain_keys) : Range{};
  A o[4][4][Vector<A>::width] = {};
  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile)
    add_pairs<Of::q, T>({p, head, row0, tile * plain_keys}, terms, columns, smem, o);
  finish<Of::q, T>(p, p.gradient.dq, block, s.queries, columns, smem, o);
}

template <class T, Of of>
__global__ void __launch_bounds__(plain_threads)
    keys_kernel(const __grid_constant__ Problem p, void* workspace, int64_t first) {
  using A = accumulator_t<T>;
  __shared__ GradientMemory<A> smem;
  const Shape& s = p.shape;
  const int64_t all = of == Of::k ? s.dim : s.value_dim;
  const Block block(s.kv_heads, s.keys, plain_keys, all, plain_columns<A>, first);
  const Columns<A> columns(block.column0, all);
  const int64_t group = s.heads / s.kv_heads, j0 = block.row0;
  A o[4][4][Vector<A>::width] = {};
  for (int64_t h = block.head * group; h < (block.head + 1) * group; ++h) {
    const PairHead<T> head(p, block.batch, h);
    const RowTerms<A>* terms = row_terms<A>(workspace, s, block.batch, h);
    const Range keys{j0, clamp(j0 + plain_keys, j0, head.sequence.keys)};
    if (keys.size() == 0) break;
    // The rows that see any of the keys, by tiles.
    const int64_t queries = head.sequence.queries;
    const int64_t begin = clamp(head.mask.rows(keys.begin).begin, 0, queries) / plain_rows;
    const int64_t end = clamp(head.mask.rows(keys.end - 1).end, 0, queries);
    for (int64_t tile = begin; tile * plain_rows < end; ++tile)
      add_pairs<of, T>({p, head, tile * plain_rows, j0}, terms, columns, smem, o);
  }
  finish<of, T>(p, of == Of::k ? p.gradient.dk : p.gradient.dv, block, s.keys, columns, smem, o);
}

// Every problem of its dtype.
template <class T> bool backward_plain_takes(const Problem&) { return true; }

template <class T> int64_t backward_workspace(const Problem& p) {
  return row_terms_bytes<accumulator_t<T>>(p.shape);
}

template <class T>
cudaError_t backward_plain(const Problem& p, void* workspace, cudaStream_t stream) {
  using A = accumulator_t<T>;
  const Shape& s = p.shape;
  // Of a matrix for each head, none of a result without elements.
  auto launch = [&](int64_t heads, int64_t rows, int64_t columns, auto kernel) {
    const int64_t blocks = s.batch * heads * Block::blocks_of(rows, plain_rows) *
                           Block::blocks_of(columns, plain_columns<A>);
    return in_grids(kernel, rows * columns == 0 ? 0 : blocks, plain_threads, 0, stream, p,
                    workspace);
  };
  if (cudaError_t error = launch_rows<T>(p, workspace, stream)) return error;
  if (cudaError_t error = launch(s.heads, s.queries, s.dim, dq_kernel<T>)) return error;
  if (cudaError_t error = launch(s.kv_heads, s.keys, s.dim, keys_kernel<T, Of::k>)) return error;
  if (cudaError_t error = launch(s.kv_heads, s.keys, s.value_dim, keys_kernel<T, Of::v>))
    return error;
  if (cudaError_t error = launch_bias<T>(p, workspace, stream)) return error;
  return launch_sinks<A>(p, workspace, stream);
}

}  // namespace fanano::cuda
