// Flash attention, forward: tiles of K and V stream past a block of query rows; the softmax is online
// and nothing of size queries x keys exists (Dao et al. 2022, algorithm 1; Dao 2023, algorithm 1).
#include "entry_points.hpp"

#include "../math/score.hpp"
#include "absorb.hpp"
#include "block.hpp"
#include "tile.hpp"
#include "typed.hpp"

namespace fanano::FANANO_ISA {

namespace {

template <class A> struct Scratch {
  A *q, *s, *o, *k, *v, *rows, *block;
  State<A>* states;

  Scratch(void* memory, const Shape& shape, int64_t query_rows, int64_t& bytes) {
    constexpr int w = Vec<A>::width;
    Arena arena{static_cast<char*>(memory)};
    int64_t strips = round_up(query_rows, strip_rows<A>) / strip_rows<A>;
    int64_t dim = round_up(shape.dim, w), value_dim = round_up(shape.value_dim, w);
    states = arena.take<State<A>>(strips);
    q = arena.take<A>(strips * dim * strip_rows<A>);
    o = arena.take<A>(strips * value_dim * strip_rows<A>);
    s = arena.take<A>(tile_keys * strip_rows<A>);
    k = arena.take<A>(tile_keys * shape.dim);
    v = arena.take<A>(tile_keys * shape.value_dim);
    rows = arena.take<A>(w * (dim > value_dim ? dim : value_dim));
    block = arena.take<A>(shape.value_dim * strip_rows<A>);
    bytes = arena.used;
  }
};

// T: of q, k and v; Out: of the result.
template <class T, class Out>
void forward(const Problem& p, const Plan& plan, int64_t task, void* memory) {
  using A = accumulator_t<T>;
  constexpr int strip = strip_rows<A>;
  const int64_t dim = p.shape.dim, value_dim = p.shape.value_dim;
  const int64_t q_size = round_up(dim, Vec<A>::width) * strip;
  const int64_t o_size = round_up(value_dim, Vec<A>::width) * strip;

  Block b = block_of(p, plan, task);
  int64_t bytes;
  Scratch<A> scratch(memory, p.shape, plan.rows, bytes);
  ScaleSplit<A> scale = split_scale<A>(p.score.scale);
  Range rows = {b.rows.begin, b.used};
  int64_t strips = round_up(rows.size(), strip) / strip;
  auto rows_of = [&](int64_t i) {
    int64_t begin = rows.begin + i * strip;
    return Range{begin, begin + strip < rows.end ? begin + strip : rows.end};
  };

  for (int64_t i = 0; i < strips; ++i) {
    Range r = rows_of(i);
    pack(at<const T>(p.q, b.batch, b.head, r.begin), p.q.row, p.q.column, r.size(), dim,
         scale.in_query, scratch.q + i * q_size, scratch.rows);
    scratch.states[i] = {Strip<A>::all(-infinity<A>), Strip<A>::all(0)};
  }
  for (int64_t i = 0; i < strips * o_size; ++i) scratch.o[i] = 0;

  Range tiles = strips ? b.mask.tiles(rows, tile_keys) : Range{};
  Range columns = strips ? b.mask.columns(rows) : Range{};
  for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
    int64_t j0 = tile * tile_keys;
    int64_t n = clamp(columns.end - j0, 0, tile_keys);
    Operand<A> k = load(at<const T>(p.k, b.batch, b.kv_head, j0), p.k.row, p.k.column, n, dim, scratch.k);
    Operand<A> v =
        load(at<const T>(p.v, b.batch, b.kv_head, j0), p.v.row, p.v.column, n, value_dim, scratch.v);
    for (int64_t i = 0; i < strips; ++i) {
      Range r = rows_of(i), c = b.mask.columns(r);
      int64_t seen = clamp(c.end - j0, 0, n);
      if (seen == 0 || c.begin >= j0 + seen) continue;
      bool whole = b.mask.whole(r, {j0, j0 + seen});
      State<A>& state = scratch.states[i];
      A* o = scratch.o + i * o_size;
      Visible<A> see;

      Strip<A> largest = score(scratch.q + i * q_size, k, seen, dim, scratch.s);
      if (!whole || scale.in_score != 1) {
        visible(b.mask, r.begin, r.size(), j0, seen, see);
        largest = apply(see, seen, scale.in_score, scratch.s);
      }
      Strip<A> alpha = absorb(state, largest);
      weigh(state, seen, scratch.s);
      if (whole)
        accumulate(scratch.s, v, seen, value_dim, alpha, o);
      else
        accumulate(scratch.s, v, seen, value_dim, alpha, o, see, scratch.block);
    }
  }

  for (int64_t i = 0; i < strips; ++i) {
    Range r = rows_of(i);
    const State<A>& state = scratch.states[i];
    unpack(scratch.o + i * o_size, inverse(state), r.size(), value_dim,
           at<Out>(p.out, b.batch, b.head, r.begin), p.out.row, p.out.column, scratch.rows);
    if (!p.lse.data) continue;
    A m[strip], l[strip];
    state.m.store(m), state.l.store(l);
    for (int64_t row = 0; row < r.size(); ++row)
      *at<A>(p.lse, b.batch, b.head, r.begin + row) = A(OnlineSoftmax<A>{m[row], l[row]}.lse());
  }
  finish_padding<A, Out>(p, b);
}

}  // namespace

int64_t flash_scratch(const Problem& p, int64_t rows) {
  int64_t bytes;
  if (p.dtype == Dtype::float64)
    Scratch<double>(nullptr, p.shape, rows, bytes);
  else
    Scratch<float>(nullptr, p.shape, rows, bytes);
  return bytes;
}

void flash(const Problem& p, const Plan& plan, int64_t task, void* scratch) {
  with_types(p.dtype, p.out_dtype,
             [&]<class T, class Out>() { forward<T, Out>(p, plan, task, scratch); });
}

}  // namespace fanano::FANANO_ISA
