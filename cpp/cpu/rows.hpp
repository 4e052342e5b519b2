// Softmax of one row, the three ways of the ladder. x is read in chunks, as contiguous numbers of
// the accumulator's type, so that every dtype and stride takes the same path.
#pragma once

#include "convert.hpp"
#include "exp2.hpp"
#include "tile_sizes.hpp"

namespace fanano::FANANO_ISA {

// Small enough for the L1 cache, and a partial sum short enough to be exact to a few rounding
// errors.
inline constexpr int chunk = 256;

// f(buffer, vectors, j, n) for each chunk [j, j + n); the last vector is filled up with -inf.
template <class A, class T, class F>
FANANO_FN void in_chunks(const T* x, int64_t stride, int64_t n, F f) {
  A buffer[chunk];
  for (int64_t j = 0; j < n; j += chunk) {
    int64_t here = n - j < chunk ? n - j : chunk;
    int64_t padded = round_up(here, Vec<A>::width);
    widen(x + j * stride, stride, buffer, here);
    for (int64_t i = here; i < padded; ++i) buffer[i] = -infinity<A>;
    f(buffer, padded, j, here);
  }
}

// A comparison with NaN is false: the maximum passes it over, and the sum does not.
template <class A> FANANO_FN A maximum(const A* x, int64_t n) {
  Vec<A> largest = Vec<A>::all(-infinity<A>);
  for (int64_t i = 0; i < n; i += Vec<A>::width) largest = max(Vec<A>::load(x + i), largest);
  A m = largest.v[0];
  for (int i = 1; i < Vec<A>::width; ++i) m = largest.v[i] > m ? largest.v[i] : m;
  return m;
}

template <class A> FANANO_FN double sum_of_exp(const A* x, int64_t n, A m) {
  Vec<A> sum = Vec<A>::all(0);
  for (int64_t i = 0; i < n; i += Vec<A>::width)
    sum = sum + exp(Vec<A>::load(x + i) - Vec<A>::all(m));
  double total = 0;
  for (int i = 0; i < Vec<A>::width; ++i) total += double(sum.v[i]);
  return total;
}

// Maximum m (0 for naive) and normaliser l = sum of e^(x - m).
template <class A> struct RowSums {
  A m = 0;
  double l = 0;
  FANANO_FN OnlineSoftmax<double> state() const { return {double(m), l}; }
};

// One pass: overflows when some x exceeds the logarithm of the largest number.
template <class A, class T> RowSums<A> naive(const T* x, int64_t stride, int64_t n) {
  RowSums<A> row;
  in_chunks<A>(x, stride, n, [&](const A* c, int64_t count, int64_t, int64_t) {
    row.l += sum_of_exp(c, count, A(0));
  });
  return row;
}

// Two passes: the maximum first.
template <class A, class T> RowSums<A> safe(const T* x, int64_t stride, int64_t n) {
  RowSums<A> row{-infinity<A>, 0};
  in_chunks<A>(x, stride, n, [&](const A* c, int64_t count, int64_t, int64_t) {
    A m = maximum(c, count);
    row.m = m > row.m ? m : row.m;
  });
  in_chunks<A>(x, stride, n, [&](const A* c, int64_t count, int64_t, int64_t) {
    row.l += sum_of_exp(c, count, pivot(row.m));
  });
  return row;
}

// One pass: what was summed so far is rescaled when the maximum grows (Milakov and Gimelshein 2018,
// algorithm 3, a chunk at a time).
template <class A, class T>
RowSums<A> online(const T* x, int64_t stride, int64_t n, RowSums<A> row = {-infinity<A>, 0}) {
  in_chunks<A>(x, stride, n, [&](const A* c, int64_t count, int64_t, int64_t) {
    A m = maximum(c, count);
    OnlineSoftmax<double> state = row.state();
    state.absorb(double(m));
    row.m = m > row.m ? m : row.m;
    row.l = state.l + sum_of_exp(c, count, pivot(row.m));
  });
  return row;
}

template <class A, class T>
RowSums<A> sums(Algorithm algorithm, const T* x, int64_t stride, int64_t n) {
  switch (algorithm) {
    case Algorithm::naive: return naive<A>(x, stride, n);
    case Algorithm::safe: return safe<A>(x, stride, n);
    default: return online<A>(x, stride, n);
  }
}

// The row with a logit that owns no value, -inf for none; naive subtracts no maximum.
template <class A> RowSums<A> with_sink(RowSums<A> row, Algorithm algorithm, double sink) {
  if (sink == -infinity<double>) return row;
  if (algorithm == Algorithm::naive) {
    row.l += double(exp(Vec<A>::all(A(sink))).v[0]);
  } else {
    A s = A(sink), m = s > row.m ? s : row.m;  // as m is rounded, or the difference may be huge
    row.l *= exp_nonpositive(double(row.m) - double(m));
    row.l += exp_nonpositive(double(s) - double(m));
    row.m = m;
  }
  return row;
}

// The last pass. x and out may be the same.
template <class A, class T>
void normalise(const RowSums<A>& row, bool naive, const T* x, int64_t x_stride, T* out,
               int64_t out_stride, int64_t n) {
  // Nothing seen: zeros, but the naive formula's own 0 / 0.
  A factor = row.l == 0 && !naive ? A(0) : A(1 / row.l);
  Vec<A> m = Vec<A>::all(pivot(row.m));
  in_chunks<A>(x, x_stride, n, [&](A* c, int64_t count, int64_t j, int64_t here) {
    for (int64_t i = 0; i < count; i += Vec<A>::width)
      (exp(Vec<A>::load(c + i) - m) * Vec<A>::all(factor)).store(c + i);
    narrow(c, out + j * out_stride, out_stride, here);
  });
}

}  // namespace fanano::FANANO_ISA
