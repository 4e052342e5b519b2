// Flash attention, forward, for all that no special kernel takes: every dtype, every number of
// columns, any strides, every option. Tiles of K and V stream past a block of query rows; the
// softmax is online, and nothing of size queries x keys exists (Dao 2023, algorithm 1).
#pragma once

#include <new>

#include "../cpp/math/online_softmax.hpp"
#include "grid.cuh"
#include "kept.cuh"
#include "kernels.hpp"
#include "place.cuh"
#include "plain_tile.cuh"

namespace fanano::cuda {

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

template <class A> struct PlainMemory {
  Operands<A> operands;
  VectorRow<A, plain_keys> p[plain_rows];
  VectorRow<A, plain_columns<A>> v[plain_keys];
  A m[plain_rows], l[plain_rows], factor[plain_rows];
  // Where it is, and of the head. Held in registers, they would leave too few.
  union { Place place; };
  union { Logits<A> logits; };
  union { Kept kept; };
  __device__ PlainMemory() {}
};

template <class T>
__global__ void __launch_bounds__(plain_threads)
    flash_plain_kernel(const __grid_constant__ Problem p, int64_t first) {
  using A = accumulator_t<T>;
  __shared__ PlainMemory<A> smem;
  constexpr int width = Vector<A>::width;
  if (threadIdx.x == 0) {
    new (&smem.place) Place(p, plain_rows, p.shape.value_dim, plain_columns<A>, first);
    new (&smem.logits) Logits<A>(p, smem.place.batch, smem.place.head, log2e<double>);
    new (&smem.kept) Kept(p.dropout, smem.place.batch, smem.place.head);
  }
  __syncthreads();  // they are there
  const Place& place = smem.place;
  const Logits<A>& logits = smem.logits;
  const Kept& kept = smem.kept;
  const int across = threadIdx.x % 8, down = threadIdx.x / 8;
  const int64_t row0 = place.row0, queries = place.sequence.queries;
  const Range rows{row0, clamp(row0 + plain_rows, row0, queries)};
  const int columns = int(clamp(p.shape.value_dim - place.column0, 0, plain_columns<A>));
  const int filled = (columns + 8 * width - 1) / (8 * width) * (8 * width);
  const Range tiles = rows.size() ? place.mask.tiles(rows, plain_keys) : Range{};
  const A factor = logits.constants.factor;

  bool again = false;
  do {
    const A headroom = again ? A(overflow_headroom) : A(0);
    A o[4][4][width] = {}, m[4], l[4];  // l: of this thread's columns alone
#pragma unroll
    for (int r = 0; r < 4; ++r) m[r] = -infinity<A>, l[r] = 0;

    for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const int64_t j0 = tile * plain_keys, keys = clamp(place.sequence.keys - j0, 0, plain_keys);
      // load, score: S = Q Kᵀ. Pointers are made anew for each tile: held, they would be registers
      // that o and s need.
      A s[4][4] = {};
      multiply(rows_of<const T>(p.q, place.batch, place.head, row0, rows.size()),
               rows_of<const T>(p.k, place.batch, place.kv_head, j0, keys), p.shape.dim,
               logits.constants.scale.sign, smem.operands, s);
      // The last V has been read, too.
      const bool finite = load_tile(rows_of<const T>(p.v, place.batch, place.kv_head, j0, keys),
                                    place.column0, columns, filled, A(1), smem.v, Itself());

      const bool whole = rows.size() == plain_rows && place.mask.whole(rows, {j0, j0 + plain_keys});
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        // mask: the logits, -inf where the row does not see
        const int64_t row = row0 + down + 8 * r;
        const Slope<A> slope = logits.slope(place.mask, row, j0);
        bool seen[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int j = across * 4 + c;
          seen[c] = whole || (row < queries && place.mask.visible(row, j0 + j));
          s[r][c] = logits.logit(s[r][c], slope, row, j0, j, seen[c]);
        }
        // absorb: m, l; S becomes P
        const A largest = largest_of_row(s[r]);
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
      l[r] = sum_of_row(l[r]);
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
    auto store = [&]<class Out>(Out) {
      const Rows<Out> out = rows_of<Out>(p.out, place.batch, place.head, row0, here);
      return store_tile(smem.v, out, place.column0, columns, again);
    };
    const bool finite = p.out_dtype == p.dtype ? store(T{}) : store(A{});
    again = !__syncthreads_and(finite) && !again;
  } while (again);
}

// Every problem of its dtype.
template <class T> bool flash_plain_takes(const Problem&) { return true; }
inline int64_t flash_plain_workspace(const Problem&) { return 0; }

template <class T> cudaError_t flash_plain(const Problem& p, void*, cudaStream_t stream) {
  using A = accumulator_t<T>;
  if (p.shape.batch * p.shape.heads * p.shape.queries == 0) return cudaSuccess;
  const int64_t blocks = Place::count(p.shape, plain_rows, p.shape.value_dim, plain_columns<A>);
  return in_grids(flash_plain_kernel<T>, blocks, plain_threads, 0, stream, p);
}

}  // namespace fanano::cuda
