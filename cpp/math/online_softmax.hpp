// Online softmax: the whole of FlashAttention's mathematics, for one row of scores.
//
//   m  the maximum of the scores seen so far
//   l  normaliser: the sum of e^(s - m) over the scores seen so far
//   o  the sum of e^(s - m) v, kept by the kernel, which multiplies it by what absorb() returns
//
// A state is a monoid: OnlineSoftmax{} is its unit and merge() its product, so a row may be cut
// anywhere (tiles, splits, cache pages, devices) and put together again in any order
// (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", section 3.1).
//
// m = -inf means that nothing has been seen. -inf - -inf is not a number, so every difference is
// taken to pivot(), never to m: the -inf rule lives here and nowhere else.
#pragma once

#include "numbers.hpp"

namespace fanano {

// What a score is measured against: m, or 0 while there is none.
template <class T> FANANO_FN T pivot(T m) { return m == -infinity<T> ? T(0) : m; }

template <class T> struct OnlineSoftmax {
  T m = -infinity<T>, l = 0;

  // Takes in a tile with this maximum; the caller then adds the tile's sum of e^(s - m) to l.
  // Returns e^(m_old - m_new), by which the caller's o must be multiplied (l is, here).
  FANANO_FN T absorb(T tile_max) {
    T raised = tile_max > m || tile_max != tile_max ? tile_max : m;
    T factor = T(exp_nonpositive(double(m) - double(pivot(raised))));
    m = raised, l *= factor;
    return factor;
  }

  FANANO_FN T inverse() const { return l == 0 ? T(0) : 1 / l; }  // an empty row gives zeros

  // Natural logarithm of the sum of e^s; -inf for an empty row.
  FANANO_FN double lse() const { return double(m) + log2_positive(double(l)) * ln2<double>; }

  // The state of both parts of a row, whichever comes first.
  FANANO_FN friend OnlineSoftmax merge(OnlineSoftmax a, OnlineSoftmax b) {
    OnlineSoftmax ab = a;
    ab.absorb(b.m);
    ab.l += b.l * T(exp_nonpositive(double(b.m) - double(pivot(ab.m))));
    return ab;
  }
};

}  // namespace fanano
