// Flash attention, forward: tiles of K and V stream past a block of query rows; the softmax is
// online and nothing of size queries x keys exists (Dao et al. 2022, algorithm 1; Dao 2023,
// algorithm 1).
#include "entry_points.hpp"

#include "absorb.hpp"
#include "block.hpp"
#include "kept.hpp"
#include "logits.hpp"
#include "special_values.hpp"

namespace fanano::FANANO_ISA {

namespace {

// A: accumulator, E: terms of the products, T: type of what they are made from.
template <class T, class E> struct Scratch {
  using A = accumulator_t<T>;
  E *q, *k, *v, *p;
  A *s, *o, *rows, *block;
  State<A>* states;
  Strip<A>* broken;  // NaN in the lanes of rows that did not come out finite, else 0
  Visible<A>* see;

  Scratch(void* memory, const Problem& problem, int64_t query_rows, int64_t& bytes) {
    constexpr int w = Vec<A>::width;
    const Shape& shape = problem.shape;
    Arena arena{static_cast<char*>(memory)};
    int64_t strips = round_up(query_rows, strip_rows<A>) / strip_rows<A>;
    int64_t dim = parts<T, E> * packed_dim<A, E>(shape.dim);
    int64_t value_dim = round_up(shape.value_dim, w);
    states = arena.take<State<A>>(strips);
    broken = arena.take<Strip<A>>(strips);
    q = arena.take<E>(strips * strip_size<T, E>(shape.dim));
    o = arena.take<A>(strips * value_dim * strip_rows<A>);
    s = arena.take<A>(tile_keys * strip_rows<A>);
    p = reinterpret_cast<E*>(s);
    if (parts<T, E> > 1) p = arena.take<E>(parts<T, E> * tile_keys * strip_rows<A>);
    k = arena.take<E>(keys_size<T, E>(shape.dim));
    v = arena.take<E>(values_size<T, E>(shape.value_dim));
    rows = arena.take<A>(w * longest_row(dim, value_dim));
    block = arena.take<A>(careful_strips<T, E> * value_dim * strip_rows<A>);
    see = arena.take<Visible<A>>(1);
    bytes = arena.used;
  }
};

// One task: a block of query rows, strip by strip. T is the type of q, k and v, E that of the
// terms, Out of the result.
template <class T, class E, class Out> class RowBlock {
  using A = accumulator_t<T>;
  static constexpr int strip = strip_rows<A>;

  const Problem& p_;
  const Block b_;
  const Scratch<T, E>& scratch_;
  const ScoreConstants<A> score_ = score_constants<A>(p_, b_.batch, b_.head, log2e<double>);
  const Kept<A> kept_{p_, b_};
  const int64_t dim_ = p_.shape.dim, value_dim_ = p_.shape.value_dim;
  const Range rows_ = {b_.rows.begin, b_.used};
  const int64_t strips_ = round_up(rows_.size(), strip) / strip;

  FANANO_FN Range rows_of(int64_t i) const {
    int64_t begin = rows_.begin + i * strip;
    return {begin, clamp(begin + strip, begin, rows_.end)};
  }
  FANANO_FN E* q(int64_t i) const { return scratch_.q + i * strip_size<T, E>(dim_); }
  FANANO_FN A* o(int64_t i) const {
    return scratch_.o + i * round_up(value_dim_, Vec<A>::width) * strip;
  }

  // Keys and values [j0, j0 + n) that pass all strips.
  struct Tile {
    int64_t j0, n;
    Operand<E> k, v;
    enum { unknown, no, yes } ordinary_v = unknown;  // until somebody has to know
  };

  void step(int64_t i, Tile& tile, A headroom) const {
    Range r = rows_of(i), columns = b_.mask.columns(r);
    int64_t j0 = tile.j0, seen = clamp(columns.end - j0, 0, tile.n);
    if (columns.begin >= j0 + seen) return;
    Visible<A>& see = *scratch_.see;
    look(b_.mask, b_.elements, r, j0, seen, see);
    if (see.none) return;
    if (b_.elements.additive() && hides_all(b_.elements, r, j0, seen)) return;

    // score
    Strip<A> largest = score(q(i), tile.k, seen, dim_, scratch_.s);
    // mask
    if (!score_.plain)
      largest = logits(score_, b_.mask, b_.elements, r, j0, see, seen, scratch_.s);
    else if (!see.whole || score_.scale.power != 1)
      largest = hide(see, seen, score_.scale.power, scratch_.s);
    // absorb: m, l; s becomes p
    Strip<A> alpha = absorb(scratch_.states[i], largest, score_.factor, headroom);
    E* p = scratch_.p;
    weigh<parts<T, E>>(scratch_.states[i], seen, score_.factor, weights(headroom), p_.lse.data,
                       scratch_.s, p);
    if (kept_.on) {
      uint64_t kept[tile_keys];
      kept_.look(r.begin, j0, seen, kept);
      for (int k = 0; k < parts<T, E>; ++k) drop(kept, seen, p + k * tile_keys * strip);
    }
    // accumulate
    if ((together<E> == 1 && see.whole) || ordinary_values(tile))
      return accumulate(p, tile.v, seen, value_dim_, alpha, o(i));
    accumulate(p, tile.v, seen, value_dim_, alpha, o(i), see, scratch_.block);
  }

  bool ordinary_values(Tile& tile) const {
    if (tile.ordinary_v == Tile::unknown)
      tile.ordinary_v = ordinary(tile.v, tile.n, value_dim_) ? Tile::yes : Tile::no;
    return tile.ordinary_v == Tile::yes;
  }

  // load: q, with the sign of the scale, transposed
  void load_queries() const {
    for (int64_t i = 0; i < strips_; ++i) {
      Range r = rows_of(i);
      pack(at<const T>(p_.q, b_.batch, b_.head, r.begin), p_.q.row, p_.q.column, r.size(), dim_,
           score_.scale.sign, q(i), reinterpret_cast<E*>(scratch_.rows));
    }
  }

  // All visible tiles of K and V, from an empty state.
  void stream(A headroom) const {
    OnlineSoftmax<A> first = sink_state(b_.sink, headroom);
    for (int64_t i = 0; i < strips_; ++i)
      scratch_.states[i] = {Strip<A>::all(first.m), Strip<A>::all(first.l), Strip<A>::all(first.l)};
    for (A *x = o(0), *end = o(strips_); x < end; ++x) *x = 0;

    Range tiles = b_.mask.tiles(rows_, tile_keys);
    int64_t last = b_.mask.columns(rows_).end;
    for (int64_t j0 = tiles.begin * tile_keys; j0 < tiles.end * tile_keys; j0 += tile_keys) {
      int64_t n = clamp(last - j0, 0, tile_keys);
      Tile tile{j0, n, {}, {}};
      tile.k = load(at<const T>(p_.k, b_.batch, b_.kv_head, j0), p_.k.row, p_.k.column, n, dim_,
                    scratch_.k);
      tile.v = load_values(at<const T>(p_.v, b_.batch, b_.kv_head, j0), p_.v.row, p_.v.column, n,
                           value_dim_, scratch_.v);
      for (int64_t i = 0; i < strips_; ++i) step(i, tile, headroom);
    }
  }

  // What o is multiplied by.
  FANANO_FN Strip<A> normaliser(int64_t i) const {
    Strip<A> factor = inverse(scratch_.states[i]);
    for (int m = 0; kept_.on && m < M; ++m) factor.v[m] = factor.v[m] * Vec<A>::all(kept_.factor);
    return factor;
  }

  // Marks the rows that did not come out finite, and says whether there are any.
  bool find_broken() const {
    bool any = false;
    for (int64_t i = 0; i < strips_; ++i) {
      Strip<A> factor = normaliser(i), mark = Strip<A>::all(0);
      for (int64_t d = 0; d < value_dim_; ++d) {
        Strip<A> x = Strip<A>::load(o(i) + d * strip);
        for (int m = 0; m < M; ++m) {
          x.v[m] = x.v[m] * factor.v[m];
          mark.v[m] = mark.v[m] + (x.v[m] - x.v[m]);  // inf - inf is NaN
        }
      }
      scratch_.broken[i] = mark;
      for (int64_t row = 0; row < rows_of(i).size(); ++row)
        any |= mark.v[row / Vec<A>::width].v[row % Vec<A>::width] != 0;
    }
    return any;
  }

  // finish: out = o / l, for all rows or those marked; lse
  void finish(bool only_broken) const {
    OnlineSoftmax<A> first = sink_state(b_.sink, A(0));
    for (int64_t i = 0; i < strips_; ++i) {
      Range r = rows_of(i);
      const State<A>& state = scratch_.states[i];
      A m[strip], l[strip], broken[strip];
      state.m.store(m), state.l.store(l), scratch_.broken[i].store(broken);
      unpack(o(i), normaliser(i), r.size(), value_dim_, at<Out>(p_.out, b_.batch, b_.head, r.begin),
             p_.out.row, p_.out.column, scratch_.rows, only_broken ? broken : nullptr);
      if (!p_.lse.data || only_broken) continue;
      for (int64_t row = 0; row < r.size(); ++row) {
        bool sink_alone = m[row] == first.m && l[row] == first.l;
        *at<A>(p_.lse, b_.batch, b_.head, r.begin + row) =
            A(sink_alone ? b_.sink : lse(double(m[row]), double(l[row])));
      }
    }
  }

 public:
  RowBlock(const Problem& p, const Plan& plan, int64_t task, const Scratch<T, E>& scratch)
      : p_(p), b_(block_of(p, plan, task)), scratch_(scratch) {}

  // Inlined into its callers, AMX's crashes GCC 12.
  __attribute__((noinline)) void run() const {
    if (strips_) {
      [[maybe_unused]] const Ready<E> ready;
      load_queries();
      stream(0);
      bool again = find_broken();
      finish(false);
      if (again) {
        stream(overflow_headroom);
        finish(true);
      }
    }
    finish_padding<A, Out>(p_, b_);
  }
};

}  // namespace

// f<T, E, Out>, as the problem's types have it.
template <class F> static void with_kernel(const Problem& p, F f) {
  with_terms(p, [&]<class T, class E>() {
    with_out<T, E>(p, [&]<class Out>() { f.template operator()<T, E, Out>(); });
  });
}

// Tile registers are fast, and need keys converted, to parts, or transposed: many rows have to pass
// a tile of keys for that not to show.
RowLimits row_limits(const Problem&) {
  return bf16_tiles ? RowLimits{256, 1024} : RowLimits{1, 512};
}

int64_t flash_scratch(const Problem& p, int64_t rows) {
  int64_t bytes = 0;
  with_kernel(p, [&]<class T, class E, class Out>() { Scratch<T, E>(nullptr, p, rows, bytes); });
  return bytes;
}

// A sequence of few queries in a batch that has longer ones: its rows are those of decode, and the
// first task of each team computes them all.
static bool left_to_decode(const Problem& p, const Plan& plan, int64_t task, void* memory) {
  Block b = block_of(p, plan, task);
  if (!p.lengths.queries || p.lengths.queries[b.batch] > decode_queries) return false;
  int64_t group = p.shape.heads / p.shape.kv_heads, together = heads_together(p.shape);
  if (b.rows.begin == 0 && b.head % group % together == 0) {
    int64_t teams = teams_of(p.shape);
    int64_t team = b.kv_head * (teams / p.shape.kv_heads) + b.head % group / together;
    shared::decode(p, plan, b.batch * teams + team, memory, nullptr);
  }
  return true;
}

void flash(const Problem& p, const Plan& plan, int64_t task, void* memory) {
  if (left_to_decode(p, plan, task, memory)) return;
  with_kernel(p, [&]<class T, class E, class Out>() {
    int64_t bytes = 0;
    Scratch<T, E> scratch(memory, p, plan.rows, bytes);
    RowBlock<T, E, Out>(p, plan, task, scratch).run();
  });
}

}  // namespace fanano::FANANO_ISA
