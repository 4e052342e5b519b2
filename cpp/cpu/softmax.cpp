// The ladder's softmax, absorb and merge, a row at a time.
#include "entry_points.hpp"
#include "rows.hpp"
#include "typed.hpp"

namespace fanano::FANANO_ISA {

void softmax(const SoftmaxRow& r, const void* x, void* out) {
  with_type(r.dtype, [&]<class T>() {
    using A = accumulator_t<T>;
    auto from = static_cast<const T*>(x);
    RowSums<A> row = sums<A>(r.algorithm, from, r.x_stride, r.n);
    normalise(row, r.algorithm == Algorithm::naive, from, r.x_stride, static_cast<T*>(out),
              r.out_stride, r.n);
  });
}

OnlineSoftmax<double> absorb(OnlineSoftmax<double> state, Dtype dtype, const void* x, int64_t n,
                             int64_t stride) {
  with_type(dtype, [&]<class T>() {
    using A = accumulator_t<T>;
    state = merge(state, online<A>(static_cast<const T*>(x), stride, n).state());
  });
  return state;
}

// lse = log(e^lse_a + e^lse_b), out = (e^(lse_a - lse) a + e^(lse_b - lse) b): the tiling identity.
// An empty part (lse = -inf) weighs nothing, whatever stands in it.
double merge(const MergeRow& r, const void* a, double lse_a, const void* b, double lse_b,
             void* out) {
  OnlineSoftmax<double> state_a{lse_a, 1}, state_b{lse_b, 1};
  if (lse_a == -infinity<double>) state_a.l = 0;
  if (lse_b == -infinity<double>) state_b.l = 0;
  OnlineSoftmax<double> both = merge(state_a, state_b);
  double weight_a = exp_nonpositive(state_a.m - pivot(both.m)) * state_a.l;
  double weight_b = exp_nonpositive(state_b.m - pivot(both.m)) * state_b.l;
  double factor = both.inverse();
  with_type(r.dtype, [&]<class T>() {
    using A = accumulator_t<T>;
    A of_a = A(weight_a * factor), of_b = A(weight_b * factor);
    auto x = static_cast<const T*>(a), y = static_cast<const T*>(b);
    for (int64_t i = 0; i < r.n; ++i) {
      A sum = 0;
      if (state_a.l != 0) sum += of_a * number(x[i * r.a_stride]);
      if (state_b.l != 0) sum += of_b * number(y[i * r.b_stride]);
      assign(static_cast<T*>(out)[i * r.out_stride], sum);
    }
  });
  return both.lse();
}

}  // namespace fanano::FANANO_ISA
