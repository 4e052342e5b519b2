// What decode leaves of each split of the keys: the states of its rows, in device memory.
#pragma once

#include <algorithm>

#include "../cpp/math/dropout.hpp"
#include "../cpp/plan.hpp"
#include "absorb.cuh"
#include "ptx/pack.cuh"

namespace fanano::cuda {

// o in float32, not normalised, and its (m, l); neighbours of a row's columns lie together, and
// its splits one after the other. Splits that no row of a tile sees have none.
struct States {
  int64_t heads, queries, splits;
  int columns;  // in pairs
  float* o;
  float2* m_l;

  static int64_t queries_of(const Shape& s) { return std::min(s.queries, decode_queries); }
  static int64_t splits_of(const Shape& s) {
    return std::max<int64_t>(1, (s.keys + decode_chunk - 1) / decode_chunk);
  }
  static int columns_of(const Shape& s) { return int(s.value_dim + 1) / 2 * 2; }

  States(const Shape& s, void* memory)
      : heads(s.heads), queries(queries_of(s)), splits(splits_of(s)), columns(columns_of(s)),
        o(static_cast<float*>(memory)),
        m_l(reinterpret_cast<float2*>(o + s.batch * heads * queries * splits * columns)) {}

  __device__ int64_t at(int64_t batch, int64_t head, int64_t query, int64_t split) const {
    return ((batch * heads + head) * queries + query) * splits + split;
  }
  __device__ float2& pair(int64_t state, int column) const {
    return *reinterpret_cast<float2*>(o + state * columns + column);
  }

  // Bytes: of one split none, it is the whole row. Too many to be addressed are as many as can be:
  // nobody has the memory.
  static int64_t bytes(const Shape& s) {
    if (splits_of(s) == 1) return 0;
    int64_t bytes = int64_t(sizeof(float)) * (columns_of(s) + 2);
    for (int64_t factor : {s.batch, s.heads, queries_of(s), splits_of(s)})
      if (__builtin_mul_overflow(bytes, factor, &bytes)) return INT64_MAX / 2;
    return bytes;
  }
};

// The merge rule of cpp/math/online_softmax.hpp, for parts of a row of which m is the largest
// maximum: o of this part is multiplied by what is returned; its l is, here. Nothing has been seen
// in a part whose l is 0, and o is 0 there: times -0, it leaves any sum as it is, a -0 too.
__device__ __forceinline__ float merge(RowState& part, float m, float factor) {
  return part.l == 0 ? -0.f : part.absorb(m, factor);
}
inline constexpr float nothing_yet = -0.f;  // what a sum that may be a -0 begins with

// As rescaled(): an infinity stays one, however small the factor.
__device__ __forceinline__ float plus_part(float o, float part, float factor) {
  return factor == 0 && !is_finite(part) ? o + part : __fmaf_rn(part, factor, o);
}
__device__ __forceinline__ void add_part(float2& o, float2 part, float factor) {
  o = {plus_part(o.x, part.x, factor), plus_part(o.y, part.y, factor)};
}
__device__ __forceinline__ float2 normalised(float2 o, float factor) {
  return {rescaled(o.x, factor), rescaled(o.y, factor)};
}

// finish: two neighbouring numbers of a row of the results.
template <class T>
__device__ __forceinline__ void store_results(const Problem& p, int64_t batch, int64_t head,
                                              int64_t query, int column, float2 x) {
  auto store = [&]<class Out, class Pair>(Pair pair, Out first, Out second) {
    Out* to = at<Out>(p.out, batch, head, query) + column * p.out.column;
    const bool both = column + 1 < p.shape.value_dim;
    if (both && p.out.column == 1 && reinterpret_cast<uintptr_t>(to) % sizeof(Pair) == 0) {
      *reinterpret_cast<Pair*>(to) = pair;
      return;
    }
    if (column < p.shape.value_dim) to[0] = first;
    if (both) to[p.out.column] = second;
  };
  if (p.out_dtype == Dtype::float32) return store(x, x.x, x.y);
  const uint32_t pair = ptx::pack(T{}, x.x, x.y);
  store(pair, T{uint16_t(pair)}, T{uint16_t(pair >> 16)});
}

__device__ __forceinline__ void store_lse(const Problem& p, int64_t batch, int64_t head,
                                          int64_t query, float lse) {
  if (p.lse.data) *at<float>(p.lse, batch, head, query) = lse;
}

// finish: lse of a row, the sink included. Returns what o must be multiplied with.
__device__ inline float finish_row(const Problem& p, int64_t batch, int64_t head, int64_t query,
                                   const RowState& row, float factor) {
  const FinishedRow finished(row, factor, p.score.sinks ? p.score.sinks[head] : -infinity<double>);
  store_lse(p, batch, head, query, finished.lse);
  return p.dropout.p > 0 ? finished.factor * float(kept_factor(p.dropout.p)) : finished.factor;
}

}  // namespace fanano::cuda
