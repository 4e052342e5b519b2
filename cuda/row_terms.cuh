// What backward has to know of each query row before its pairs are made again.
#pragma once

#include "numbers.cuh"

namespace fanano::cuda {

// With s a pair's score as Logits leaves it, and factor its factor (logits.cuh),
//
//   p     = 2^((s - m) factor) inverse   the pair's probability; a sink is in the inverse
//   delta = sum over the row's keys of p dp, - dlse   (cpp/math/gradient.hpp)
//
// m is a score that is there, or 0. A row that sees nothing has the inverse 0, padding has zeros.
template <class A> struct RowTerms { A m = 0, inverse = 0, delta = 0; };

// (batch, heads, queries), contiguous, at the beginning of the workspace.
template <class A> int64_t row_terms_bytes(const Shape& s) {
  return s.batch * s.heads * s.queries * int64_t(sizeof(RowTerms<A>));
}

// The rows of one head.
template <class A>
__device__ __forceinline__ RowTerms<A>* row_terms(void* workspace, const Shape& s, int64_t batch,
                                                  int64_t head) {
  return static_cast<RowTerms<A>*>(workspace) + (batch * s.heads + head) * s.queries;
}

}  // namespace fanano::cuda
