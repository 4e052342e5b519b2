// What backward has to know of each query row before keys pass it: how its logits become
// probabilities, from lse, and delta = dout . out - dlse. Of these also dsinks.
#include "entry_points.hpp"

#include "gradients.hpp"

namespace fanano::FANANO_ISA {

namespace {

// A: accumulator, E: terms of the products, T: type of what they are made from.
template <class T, class E> struct Scratch {
  using A = accumulator_t<T>;
  E *q, *dout, *k, *v;
  A *s, *dp, *rows;
  Visible<A>* see;

  Scratch(void* memory, const Problem& p, int64_t& bytes) {
    constexpr int w = Vec<A>::width;
    Arena arena{static_cast<char*>(memory)};
    int64_t dim = parts<T, E> * packed_dim<A, E>(p.shape.dim);
    int64_t value_dim = parts<T, E> * packed_dim<A, E>(p.shape.value_dim);
    q = arena.take<E>(strip_size<T, E>(p.shape.dim));
    dout = arena.take<E>(strip_size<T, E>(p.shape.value_dim));
    s = arena.take<A>(tile_keys * strip_rows<A>);
    dp = arena.take<A>(tile_keys * strip_rows<A>);
    k = arena.take<E>(keys_size<T, E>(p.shape.dim));
    v = arena.take<E>(keys_size<T, E>(p.shape.value_dim));
    rows = arena.take<A>(w * longest_row(dim, value_dim));
    see = arena.take<Visible<A>>(1);
    bytes = arena.used;
  }
};

// How many keys a row may attend to, counted up to `most`.
int64_t seen_keys(const Block& b, int64_t row, int64_t most) {
  Range columns = b.mask.columns(row);
  if (!b.elements.data) return clamp(columns.size(), 0, most);
  int64_t count = 0;
  with_element(b.elements.dtype, [&]<class T>() {
    for (int64_t j = columns.begin; j < columns.end && count < most; ++j)
      count += shows(*b.elements.at<T>(row, j));
  });
  return count;
}

// lse was rounded when it was written, and p = e^(logit - lse) is wrong by as much; so was out, of
// which delta is made. Both are made again, from the same scores (what the errors of one add, those
// of the other take away), where lse is far from 0, where so few keys share a row that hardly
// anything else is rounded, and where few queries had their scores summed in the order of decode.
template <class T> bool trusted(double lse, const Block& b, int64_t row) {
  constexpr double far = std::is_same_v<T, float> ? 32 : 1024;
  constexpr int64_t few_keys = 64;
  if (!std::is_same_v<T, double>) {
    if (b.queries <= decode_queries || seen_keys(b, row, few_keys + 1) <= few_keys) return false;
  }
  return lse < far && lse > -far;
}

template <class A> double dlse_of(const Problem& p, const Block& b, int64_t row) {
  const Tensor& dlse = p.gradient.dlse;
  return dlse.data ? double(*at<A>(dlse, b.batch, b.head, row)) : 0;
}

// The sum of the products of n numbers, in double.
template <class A, class X>
double dot(const X* x, int64_t x_stride, const X* y, int64_t y_stride, int64_t n) {
  constexpr int lanes = 8, many = 64;
  // Side by side, and zeros up to a whole number of lanes: in the buffer, if not so already.
  auto load = [](const X* from, int64_t stride, int64_t count, A* buffer) -> const A* {
    if constexpr (std::is_same_v<A, X>)
      if (stride == 1 && count % lanes == 0) return from;
    widen(from, stride, buffer, count);
    for (int64_t i = count; i % lanes; ++i) buffer[i] = 0;
    return buffer;
  };
  double sums[lanes] = {}, sum = 0;
  for (int64_t d = 0; d < n; d += many) {
    const int64_t here = clamp(n - d, 0, many);
    A x_buffer[many], y_buffer[many];
    const A* a = load(x + d * x_stride, x_stride, here, x_buffer);
    const A* b = load(y + d * y_stride, y_stride, here, y_buffer);
    for (int64_t i = 0; i < here; i += lanes)
      for (int k = 0; k < lanes; ++k) sums[k] += double(a[i + k]) * double(b[i + k]);
  }
  for (double x : sums) sum += x;
  return sum;
}

// delta; of a row that sees nothing, whatever its dout is, what lse alone leaves of it.
template <class T, class E>
accumulator_t<T> delta_of(const Problem& p, const Block& b, int64_t row) {
  using A = accumulator_t<T>;
  const Tensor& dout = p.gradient.dout;
  double sum = 0;
  with_out<T, E>(p, [&]<class Out>() {
    sum = dot<A>(at<const Out>(dout, b.batch, b.head, row), dout.column,
                 at<const Out>(p.out, b.batch, b.head, row), p.out.column, p.shape.value_dim);
  });
  if (sum - sum != 0 && seen_keys(b, row, 1) == 0) sum = 0;
  return A(sum - dlse_of<A>(p, b, row));
}

// The state of a strip's softmax, as the forward pass has it, and the sum of p dp that goes with
// it: delta, but for the normalisation of p.
template <class A> struct SummedState {
  State<A> state;
  Strip<A> p_dp = Strip<A>::all(0);
};

// x += sum over the keys of p dp, x times alpha before; of pairs that weigh nothing dp may be
// anything.
template <class A>
void add_products(const Strip<A>& alpha, int64_t n, const A* p, const A* dp, Strip<A>& x) {
  const Vec<A> none = Vec<A>::all(0);
  Strip<A> sum = Strip<A>::all(0);
  for (int64_t j = 0; j < n; ++j)
    for (int m = 0; m < M; ++m) {
      int64_t at = j * strip_rows<A> + m * Vec<A>::width;
      Vec<A> weight = Vec<A>::load(p + at), of_p = Vec<A>::load(dp + at);
      sum.v[m] = fma(weight, select_equal(weight, none, none, of_p), sum.v[m]);
    }
  for (int m = 0; m < M; ++m) x.v[m] = fma(x.v[m], alpha.v[m], sum.v[m]);
}

template <class T, class E>
SummedState<accumulator_t<T>> softmax_state(const Problem& p, const Block& b, Range r,
                                            const Scratch<T, E>& scratch) {
  using A = accumulator_t<T>;
  [[maybe_unused]] const Ready<E> ready;
  const ScoreConstants<A> c = score_constants<A>(p, b.batch, b.head, log2e<double>);
  const OnlineSoftmax<A> first = sink_state(b.sink, A(0));
  const Range tiles = b.mask.tiles(r, tile_keys), columns = b.mask.columns(r);
  Visible<A>& see = *scratch.see;
  const Kept<A> dropout(p, b);
  SummedState<A> found{{Strip<A>::all(first.m), Strip<A>::all(first.l), Strip<A>::all(first.l)}};
  load_dout<T>(p, b, r, scratch.dout, scratch.rows);
  pack(at<const T>(p.q, b.batch, b.head, r.begin), p.q.row, p.q.column, r.size(), p.shape.dim,
       c.scale.sign, scratch.q, reinterpret_cast<E*>(scratch.rows));
  for (int64_t j0 = tiles.begin * tile_keys; j0 < columns.end; j0 += tile_keys) {
    int64_t n = clamp(columns.end - j0, 0, tile_keys);
    look(b.mask, b.elements, r, j0, n, see);
    if (see.none) continue;
    Operand<E> k = load(at<const T>(p.k, b.batch, b.kv_head, j0), p.k.row, p.k.column, n,
                        p.shape.dim, scratch.k);
    score(scratch.q, k, n, p.shape.dim, scratch.s);
    Strip<A> largest = c.plain ? hide(see, n, c.scale.power, scratch.s)
                               : logits(c, b.mask, b.elements, r, j0, see, n, scratch.s);
    Strip<A> alpha = absorb(found.state, largest, c.factor, A(0));
    A* weight = scratch.s;
    weigh<1>(found.state, n, c.factor, weights(A(0)), true, scratch.s, weight);
    if (p.shape.value_dim == 0) continue;
    if (dropout.on) {
      uint64_t kept[tile_keys];
      dropout.look(r.begin, j0, n, kept);
      drop(kept, n, weight);
    }
    Operand<E> v = load(at<const T>(p.v, b.batch, b.kv_head, j0), p.v.row, p.v.column, n,
                        p.shape.value_dim, scratch.v);
    score(scratch.dout, v, n, p.shape.value_dim, scratch.dp);
    add_products(alpha, n, weight, scratch.dp, found.p_dp);
  }
  for (int m = 0; m < M; ++m) found.p_dp.v[m] = found.p_dp.v[m] * Vec<A>::all(dropout.factor);
  return found;
}

// The numbers of rows r, at most a strip.
template <class T, class E, class A>
void strip_numbers(const Problem& p, const Block& b, Range r, const RowNumbers<A>& to,
                   const Scratch<T, E>& scratch) {
  constexpr int strip = strip_rows<A>;
  double lse[strip] = {}, first_m[strip], first_weight[strip];
  for (int64_t i = 0; i < r.size(); ++i)
    lse[i] = double(*at<A>(p.lse, b.batch, b.head, r.begin + i));
  for (int i = 0; i < strip; i += Vec<double>::width) {
    Vec<double> x = pivot(Vec<double>::load(lse + i)) * Vec<double>::all(log2e<double>);
    Vec<double> m = ceil(x);
    m.store(first_m + i), exp2(m - x, 0.0).store(first_weight + i);
  }
  bool doubtful[strip], any = false;
  for (int64_t i = 0; i < r.size(); ++i) {
    int64_t row = row_index(p.shape, b, r.begin + i);
    to.m[row] = A(first_m[i]), to.weight[row] = A(first_weight[i]);
    to.delta[row] = delta_of<T, E>(p, b, r.begin + i);
    doubtful[i] = lse[i] - lse[i] == 0 && !trusted<T>(lse[i], b, r.begin + i);
    any |= doubtful[i];
  }
  if (!any) return;
  const SummedState<A> found = softmax_state(p, b, r, scratch);
  A m[strip], weight[strip], p_dp[strip];
  found.state.m.store(m), inverse(found.state).store(weight), found.p_dp.store(p_dp);
  for (int64_t i = 0; i < r.size(); ++i) {
    int64_t row = row_index(p.shape, b, r.begin + i);
    if (!doubtful[i]) continue;
    to.m[row] = pivot(m[i]), to.weight[row] = weight[i];
    // What is not finite is so for a reason that out knows: a value of no weight, for one.
    A& delta = to.delta[row];
    if (delta - delta == 0)
      delta = A(double(p_dp[i]) * double(weight[i]) - dlse_of<A>(p, b, r.begin + i));
  }
}

}  // namespace

int64_t row_scratch(const Problem& p) {
  int64_t bytes = 0;
  with_terms(p, [&]<class T, class E>() { Scratch<T, E>(nullptr, p, bytes); });
  return bytes;
}

int64_t row_numbers(const Problem& p) {
  int64_t bytes = 0;
  with_accumulator(p.dtype, [&]<class A>() { RowNumbers<A>(nullptr, p.shape, bytes); });
  return bytes;
}

// One block of rows of one head.
void backward_rows(const Problem& p, const BackwardPlan&, int64_t task, void* memory,
                   void* workspace) {
  with_terms(p, [&]<class T, class E>() {
    using A = accumulator_t<T>;
    int64_t bytes, blocks = (p.shape.queries + block_rows<A> - 1) / block_rows<A>;
    Scratch<T, E> scratch(memory, p, bytes);
    RowNumbers<A> numbers(workspace, p.shape);
    Range rows{task % blocks * block_rows<A>, (task % blocks + 1) * block_rows<A>};
    int64_t head = task / blocks;
    Block b = head_block(p, head / p.shape.heads, head % p.shape.heads,
                         {rows.begin, clamp(rows.end, 0, p.shape.queries)});
    for (int64_t i = b.rows.begin; i < b.used; i += strip_rows<A>)
      strip_numbers<T>(p, b, {i, clamp(i + strip_rows<A>, i, b.used)}, numbers, scratch);
  });
}

// One head: the sum over its rows of -delta times the sink's probability.
void backward_sinks(const Problem& p, const BackwardPlan&, int64_t head, void*, void* workspace) {
  with_accumulator(p.dtype, [&]<class A>() {
    RowNumbers<A> numbers(workspace, p.shape);
    double sum = 0;
    for (int64_t batch = 0; batch < p.shape.batch && p.score.sinks; ++batch) {
      Block b = head_block(p, batch, head, {0, p.shape.queries});
      OnlineSoftmax<A> sink = sink_state(b.sink, A(0));
      for (int64_t i = 0; i < b.used && b.sink != -infinity<double>; ++i) {
        int64_t row = row_index(p.shape, b, i);
        double change = double(sink.m) - double(numbers.m[row]);
        double weight = exp2_nonpositive(change) * double(sink.l) * double(numbers.weight[row]);
        if (weight != 0) sum -= weight * double(numbers.delta[row]);
      }
    }
    *at<A>(p.gradient.dsinks, 0, head, 0) = A(sum);
  });
}

}  // namespace fanano::FANANO_ISA
