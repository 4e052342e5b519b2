// Flash attention, forward: tiles of K and V stream past a block of query rows; the softmax is
// online and nothing of size queries x keys exists (Dao et al. 2022, algorithm 1; Dao 2023,
// algorithm 1).
#include <algorithm>
#include <new>

#include "entry_points.hpp"

#include "absorb.hpp"
#include "block.hpp"
#include "kept.hpp"
#include "logits.hpp"
#include "special_values.hpp"

namespace fanano::FANANO_ISA {

namespace {

// What the strips of one head share.
template <class A> struct Head {
  Block block;
  ScoreConstants<A> constants;
  Kept<A> kept;

  Head(const Problem& p, const Block& b)
      : block(b), constants(score_constants<A>(p, b.batch, b.head, log2e<double>)), kept(p, b) {}
};

// A strip: query rows of one head, by lanes, and what has become of them.
template <class A, class E> struct Passing {
  const Head<A>* head;
  Range rows;
  E* q;
  A* o;
  State<A> state;
  Strip<A> broken;  // NaN in the lanes of rows that did not come out finite, else 0
};

// A: accumulator, E: terms of the products, T: type of what they are made from.
template <class T, class E> struct Scratch {
  using A = accumulator_t<T>;
  Head<A>* heads;
  Passing<A, E>* strips;
  E *k, *v, *v_panels, *p;
  A *s, *rows, *block;
  Visible<A>* see;

  Scratch(void* memory, const Problem& problem, int64_t query_rows, int64_t& bytes) {
    constexpr int w = Vec<A>::width;
    const Shape& shape = problem.shape;
    Arena arena{static_cast<char*>(memory)};
    int64_t most_strips = round_up(query_rows, strip_rows<A>) / strip_rows<A>;
    int64_t dim = parts<T, E> * packed_dim<A, E>(shape.dim);
    int64_t value_dim = round_up(shape.value_dim, w);
    heads = arena.take<Head<A>>(clamp(shape.heads / shape.kv_heads, 1, most_strips));
    strips = arena.take<Passing<A, E>>(most_strips);
    E* q = arena.take<E>(most_strips * strip_size<T, E>(shape.dim));
    A* o = arena.take<A>(most_strips * value_dim * strip_rows<A>);
    for (int64_t i = 0; memory && i < most_strips; ++i) {
      strips[i].q = q + i * strip_size<T, E>(shape.dim);
      strips[i].o = o + i * value_dim * strip_rows<A>;
    }
    s = arena.take<A>(tile_keys * strip_rows<A>);
    p = reinterpret_cast<E*>(s);
    if (parts<T, E> > 1) p = arena.take<E>(parts<T, E> * tile_keys * strip_rows<A>);
    k = arena.take<E>(keys_size<T, E>(shape.dim));
    v = arena.take<E>(values_size<T, E>(shape.value_dim));
    v_panels = arena.take<E>(together<E> == 1 ? values_size<T, E>(shape.value_dim) : 0);
    rows = arena.take<A>(w * longest_row(dim, value_dim));
    block = arena.take<A>(careful_strips<T, E> * value_dim * strip_rows<A>);
    see = arena.take<Visible<A>>(1);
    bytes = arena.used;
  }
};

// One task: a block of query rows, strip by strip, head by head. T is the type of q, k and v, E
// that of the terms, Out of the result.
template <class T, class E, class Out> class RowBlock {
  using A = accumulator_t<T>;
  static constexpr int strip = strip_rows<A>;

  const Problem& p_;
  const Rows task_;
  const Scratch<T, E>& scratch_;
  const Block first_ = head_block(p_, task_.batch, task_.head, task_.of_each);
  const Range rows_ = {task_.of_each.begin, first_.used};  // of each head
  const int64_t dim_ = p_.shape.dim, value_dim_ = p_.shape.value_dim;
  const int64_t of_head_ = round_up(rows_.size(), strip) / strip, strips_ = task_.heads * of_head_;

  // Keys and values [j0, j0 + n) that pass all strips.
  struct Tile {
    int64_t j0, n;
    Operand<E> k, v;
    enum { unknown, no, yes } ordinary_v = unknown;  // until somebody has to know
  };

  void step(Passing<A, E>& x, Tile& tile, A headroom) const {
    const auto& [b, c, dropout] = *x.head;
    Range columns = b.mask.columns(x.rows);
    int64_t j0 = tile.j0, seen = clamp(columns.end - j0, 0, tile.n);
    if (columns.begin >= j0 + seen) return;
    Visible<A>& see = *scratch_.see;
    look(b.mask, b.elements, x.rows, j0, seen, see);
    if (see.none) return;
    if (b.elements.additive() && hides_all(b.elements, x.rows, j0, seen)) return;

    // score
    Strip<A> largest = score(x.q, tile.k, seen, dim_, scratch_.s);
    // mask
    if (!c.plain)
      largest = logits(c, b.mask, b.elements, x.rows, j0, see, seen, scratch_.s);
    else if (!see.whole || c.scale.power != 1)
      largest = hide(see, seen, c.scale.power, scratch_.s);
    // absorb: m, l; s becomes p
    Strip<A> alpha = absorb(x.state, largest, c.factor, headroom);
    E* p = scratch_.p;
    weigh<parts<T, E>>(x.state, seen, c.factor, weights(headroom), p_.lse.data, scratch_.s, p);
    if (dropout.on) {
      uint64_t kept[tile_keys];
      dropout.look(x.rows.begin, j0, seen, kept);
      for (int k = 0; k < parts<T, E>; ++k) drop(kept, seen, p + k * tile_keys * strip);
    }
    // accumulate
    if ((together<E> == 1 && see.whole) || ordinary_values(tile))
      return accumulate(p, tile.v, seen, value_dim_, alpha, x.o);
    accumulate(p, tile.v, seen, value_dim_, alpha, x.o, see, scratch_.block);
  }

  bool ordinary_values(Tile& tile) const {
    if (tile.ordinary_v == Tile::unknown)
      tile.ordinary_v = ordinary(tile.v, tile.n, value_dim_) ? Tile::yes : Tile::no;
    return tile.ordinary_v == Tile::yes;
  }

  template <class F> FANANO_FN void for_each_strip(F f) const {
    for (int64_t i = 0; i < strips_; ++i) f(scratch_.strips[i]);
  }

  // load: q, with the sign of the scale, transposed
  void load_queries() const {
    for (int64_t i = 0; i < strips_; ++i) {
      Passing<A, E>& x = scratch_.strips[i];
      const int64_t h = i / of_head_, begin = rows_.begin + i % of_head_ * strip;
      x.head = &scratch_.heads[h];
      x.rows = {begin, clamp(begin + strip, begin, rows_.end)};
      pack(at<const T>(p_.q, task_.batch, task_.head + h, begin), p_.q.row, p_.q.column,
           x.rows.size(), dim_, x.head->constants.scale.sign, x.q,
           reinterpret_cast<E*>(scratch_.rows));
    }
  }

  // All visible tiles of K and V, from an empty state.
  void stream(A headroom) const {
    for_each_strip([&](Passing<A, E>& x) {
      OnlineSoftmax<A> first = sink_state(x.head->block.sink, headroom);
      x.state = {Strip<A>::all(first.m), Strip<A>::all(first.l), Strip<A>::all(first.l)};
      std::fill_n(x.o, round_up(value_dim_, Vec<A>::width) * strip, A(0));
    });
    const Tensor &k = p_.k, &v = p_.v;
    Range tiles = first_.mask.tiles(rows_, tile_keys);
    int64_t last = first_.mask.columns(rows_).end;
    for (int64_t j0 = tiles.begin * tile_keys; j0 < tiles.end * tile_keys; j0 += tile_keys) {
      int64_t n = clamp(last - j0, 0, tile_keys);
      Tile tile{j0, n, {}, {}};
      tile.k = load(at<const T>(k, task_.batch, task_.kv_head, j0), k.row, k.column, n, dim_,
                    scratch_.k);
      tile.v = load_values(at<const T>(v, task_.batch, task_.kv_head, j0), v.row, v.column, n,
                           value_dim_, scratch_.v);
      if (strips_ >= many_strips) {
        gather(tile.k, n, dim_, scratch_.k);
        gather_values(tile.v, n, value_dim_, scratch_.v, scratch_.v_panels);
      }
      for_each_strip([&](Passing<A, E>& x) { step(x, tile, headroom); });
    }
  }

  // What o is multiplied by.
  FANANO_FN static Strip<A> normaliser(const Passing<A, E>& x) {
    const Kept<A>& kept = x.head->kept;
    Strip<A> factor = inverse(x.state);
    for (int m = 0; kept.on && m < M; ++m) factor.v[m] = factor.v[m] * Vec<A>::all(kept.factor);
    return factor;
  }

  // Marks the rows that did not come out finite, and says whether there are any.
  bool find_broken() const {
    bool any = false;
    for_each_strip([&](Passing<A, E>& x) {
      Strip<A> factor = normaliser(x), mark = Strip<A>::all(0);
      for (int64_t d = 0; d < value_dim_; ++d) {
        Strip<A> o = Strip<A>::load(x.o + d * strip);
        for (int m = 0; m < M; ++m) {
          o.v[m] = o.v[m] * factor.v[m];
          mark.v[m] = mark.v[m] + (o.v[m] - o.v[m]);  // inf - inf is NaN
        }
      }
      x.broken = mark;
      for (int64_t row = 0; row < x.rows.size(); ++row)
        any |= mark.v[row / Vec<A>::width].v[row % Vec<A>::width] != 0;
    });
    return any;
  }

  // finish: out = o / l, for all rows or those marked; lse
  void finish(bool only_broken) const {
    for_each_strip([&](Passing<A, E>& x) {
      const Block& b = x.head->block;
      OnlineSoftmax<A> first = sink_state(b.sink, A(0));
      A m[strip], l[strip], broken[strip];
      x.state.m.store(m), x.state.l.store(l), x.broken.store(broken);
      unpack(x.o, normaliser(x), x.rows.size(), value_dim_,
             at<Out>(p_.out, b.batch, b.head, x.rows.begin), p_.out.row, p_.out.column,
             scratch_.rows, only_broken ? broken : nullptr);
      if (!p_.lse.data || only_broken) return;
      for (int64_t row = 0; row < x.rows.size(); ++row) {
        bool sink_alone = m[row] == first.m && l[row] == first.l;
        *at<A>(p_.lse, b.batch, b.head, x.rows.begin + row) =
            A(sink_alone ? b.sink : lse(double(m[row]), double(l[row])));
      }
    });
  }

 public:
  RowBlock(const Problem& p, const Rows& task, const Scratch<T, E>& scratch)
      : p_(p), task_(task), scratch_(scratch) {
    for (int64_t h = 0; h < task.heads; ++h)
      new (&scratch.heads[h]) Head<A>(p, head_block(p, task.batch, task.head + h, task.of_each));
  }

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
    for (int64_t h = 0; h < task_.heads; ++h) finish_padding<A, Out>(p_, scratch_.heads[h].block);
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
// task that has the first rows and head of a team computes it.
static bool left_to_decode(const Problem& p, const Plan& plan, const Rows& rows, void* memory) {
  if (!p.lengths.queries || p.lengths.queries[rows.batch] > decode_queries) return false;
  const int64_t group = p.shape.heads / p.shape.kv_heads, together = heads_together(p.shape);
  const int64_t teams = teams_of(p.shape);
  for (int64_t head = rows.head; rows.of_each.begin == 0 && head < rows.head + rows.heads; ++head) {
    if (head % group % together) continue;
    int64_t team = rows.kv_head * (teams / p.shape.kv_heads) + head % group / together;
    shared::decode(p, plan, rows.batch * teams + team, memory, nullptr);
  }
  return true;
}

void flash(const Problem& p, const Plan& plan, int64_t task, void* memory) {
  const Rows rows = rows_of(p, plan, task);
  if (left_to_decode(p, plan, rows, memory)) return;
  with_kernel(p, [&]<class T, class E, class Out>() {
    int64_t bytes = 0;
    Scratch<T, E> scratch(memory, p, plan.heads * plan.rows, bytes);
    RowBlock<T, E, Out>(p, rows, scratch).run();
  });
}

}  // namespace fanano::FANANO_ISA
