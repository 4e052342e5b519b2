// The ladder's attention: every score of the problem stands in memory, the softmax of its rows is
// naive, safe or online, and then the products with v are taken. The yardstick for flash, in memory
// and in time; it shares flash's micro-kernels, so that the comparison is of the algorithms.
#include <algorithm>

#include "block.hpp"
#include "entry_points.hpp"
#include "logits.hpp"
#include "rows.hpp"
#include "special_values.hpp"

namespace fanano::FANANO_ISA {

namespace {

template <class A> struct Scratch {
  A *q, *s, *o, *k, *v, *rows, *block;
  Visible<A>* see;

  Scratch(void* memory, const Problem& p, int64_t& bytes) {
    constexpr int w = Vec<A>::width;
    const Shape& shape = p.shape;
    Arena arena{static_cast<char*>(memory)};
    int64_t dim = round_up(shape.dim, w), value_dim = round_up(shape.value_dim, w);
    q = arena.take<A>(dim * strip_rows<A>);
    o = arena.take<A>(value_dim * strip_rows<A>);
    s = arena.take<A>(tile_keys * strip_rows<A>);
    k = arena.take<A>(tile_keys * shape.dim);
    v = arena.take<A>(tile_keys * shape.value_dim);
    rows = arena.take<A>(w * std::max<int64_t>(longest_row(dim, value_dim), tile_keys));
    block = arena.take<A>(shape.value_dim * strip_rows<A>);
    see = arena.take<Visible<A>>(1);
    bytes = arena.used;
  }
};

// Whether a row of logits has one that is not hidden.
template <class A> bool sees_any(const A* row, int64_t keys) {
  for (int64_t j = 0; j < keys; ++j)
    if (row[j] != -infinity<A>) return true;
  return false;
}

// One strip of rows r; scores points at the row r.begin of the (queries, keys) matrix.
template <class T, class Out>
void strip(const Problem& p, const Block& b, Range r, accumulator_t<T>* scores,
           const Scratch<accumulator_t<T>>& scratch) {
  using A = accumulator_t<T>;
  const int64_t keys = p.shape.keys, dim = p.shape.dim, value_dim = p.shape.value_dim;
  const Range columns = b.mask.columns(r);
  const ScoreConstants<A> constants = score_constants<A>(p, b.batch, b.head, 1);
  Visible<A>& see = *scratch.see;

  // load, score, mask: S, the logits, -inf where a row does not see
  pack(at<const T>(p.q, b.batch, b.head, r.begin), p.q.row, p.q.column, r.size(), dim,
       constants.scale.sign, scratch.q, scratch.rows);
  for (int64_t j0 = 0; j0 < keys; j0 += tile_keys) {
    int64_t n = clamp(keys - j0, 0, tile_keys), seen = clamp(columns.end - j0, 0, n);
    if (seen > 0) {
      Operand<A> k =
          load(at<const T>(p.k, b.batch, b.kv_head, j0), p.k.row, p.k.column, seen, dim, scratch.k);
      score(scratch.q, k, seen, dim, scratch.s);
      look(b.mask, b.elements, r, j0, seen, see);
      if (constants.plain)
        hide(see, seen, constants.scale.power, scratch.s);
      else
        logits(constants, b.mask, b.elements, r, j0, see, seen, scratch.s);
      unpack(scratch.s, Strip<A>::all(constants.factor), r.size(), seen, scores + j0, keys, 1,
             scratch.rows);
    }
    for (int64_t i = 0; i < r.size(); ++i)
      for (int64_t j = seen; j < n; ++j) scores[i * keys + j0 + j] = -infinity<A>;
  }

  // absorb: P = softmax of the rows, in place
  for (int64_t i = 0; i < r.size(); ++i) {
    A* row = scores + i * keys;
    RowSums<A> row_sums = with_sink(sums<A>(p.algorithm, row, 1, keys), p.algorithm, b.sink);
    // A row that sees nothing gives zeros: the naive formula's 0 / 0 is for softmax() to show.
    bool naive = p.algorithm == Algorithm::naive && sees_any(row, keys);
    normalise(row_sums, naive, row, 1, row, 1, keys);
    if (p.lse.data) *at<A>(p.lse, b.batch, b.head, r.begin + i) = A(row_sums.state().lse());
  }

  // accumulate: O = P v
  for (int64_t i = 0; i < round_up(value_dim, Vec<A>::width) * strip_rows<A>; ++i) scratch.o[i] = 0;
  for (int64_t j0 = 0; j0 < columns.end; j0 += tile_keys) {
    int64_t seen = clamp(columns.end - j0, 0, tile_keys);
    Operand<A> v = load(at<const T>(p.v, b.batch, b.kv_head, j0), p.v.row, p.v.column, seen,
                        value_dim, scratch.v);
    pack(scores + j0, keys, int64_t(1), r.size(), seen, A(1), scratch.s, scratch.rows);
    look(b.mask, b.elements, r, j0, seen, see, true);
    if (see.whole || ordinary(v, seen, value_dim))
      accumulate(scratch.s, v, seen, value_dim, Strip<A>::all(1), scratch.o);
    else
      accumulate(scratch.s, v, seen, value_dim, Strip<A>::all(1), scratch.o, see, scratch.block);
  }

  // finish
  unpack(scratch.o, Strip<A>::all(1), r.size(), value_dim, at<Out>(p.out, b.batch, b.head, r.begin),
         p.out.row, p.out.column, scratch.rows);
}

}  // namespace

int64_t materialised_scratch(const Problem& p, int64_t) {
  int64_t bytes;
  if (p.dtype == Dtype::float64)
    Scratch<double>(nullptr, p, bytes);
  else
    Scratch<float>(nullptr, p, bytes);
  return bytes;
}

void materialised(const Problem& p, const Plan& plan, int64_t task, void* memory, void* scores) {
  with_types(p.dtype, p.out_dtype, [&]<class T, class Out>() {
    using A = accumulator_t<T>;
    int64_t bytes;
    Scratch<A> scratch(memory, p, bytes);
    const Rows rows = rows_of(p, plan, task);
    Block b = head_block(p, rows.batch, rows.head, rows.of_each);
    A* matrix = static_cast<A*>(scores) +
                (b.batch * p.shape.heads + b.head) * p.shape.queries * p.shape.keys;
    for (int64_t begin = b.rows.begin; begin < b.used; begin += strip_rows<A>) {
      Range r{begin, clamp(begin + strip_rows<A>, begin, b.used)};
      strip<T, Out>(p, b, r, matrix + begin * p.shape.keys, scratch);
    }
    finish_padding<A, Out>(p, b);
  });
}

}  // namespace fanano::FANANO_ISA
