// Flash attention, backward: a pass of query rows over the tiles of K and V makes P and dS again,
// tile by tile, and from them the three products dq = dS k, dk += dS^T q and dv += P^T dout (Dao et
// al. 2022, algorithm 4; Dao 2023, algorithm 2). With the two that made P and dS, five in all, and
// each row of q is looked at once.
//
// A pass owns its rows of dq. dk and dv are sums over all passes of all query heads that share the
// key head: most_sums of them, to which passes are dealt out in turn, and which are added at the
// end. No two threads ever add to one place, and where sums begin and end depends on nothing but
// the number of the head in its group and the row.
#include "entry_points.hpp"

#include "gradients.hpp"
#include "key_sums.hpp"
#include "special_values.hpp"

namespace fanano::FANANO_ISA {

namespace {

// A strip of a pass: also its rows by panels, and its dq, [column][row].
template <class A, class E, class O> struct PassStrip : Queries<A, E> {
  O *q_panels, *dout_panels;
  A* dq;
  uint64_t broken_q, broken_dout;  // rows that panels leave something out of
};

// A: accumulator, E: terms of the products that make P and dS, O: of those that sum them, T: type
// of what they are made from.
template <class T, class E> struct Scratch {
  using A = accumulator_t<T>;
  using O = summed_t<T, E>;
  using Made = Pieces<A, O, parts<T, O>>;
  using Passing = PassStrip<A, E, O>;

  Passing* strips;
  Visible<A>* see;  // of each strip of a chain, and so are
  Made* pieces;
  E *k, *v;
  O* k_values;
  A *rows, *block, *slope;
  KeySums<A> sums, more;  // where they are not split over tasks

  Scratch(void* memory, const Problem& p, const BackwardPlan& plan, int64_t& bytes) {
    constexpr int w = Vec<A>::width, strip = strip_rows<A>;
    constexpr int64_t piece = tile_keys * strip, chain = chain_strips<A, O>;
    const Shape& shape = p.shape;
    Arena arena{static_cast<char*>(memory)};
    int64_t dim = packed_dim<A, E>(shape.dim), value_dim = packed_dim<A, E>(shape.value_dim);
    strips = arena.take<Passing>(pass_strips<A, O>);
    for (int64_t i = 0; i < pass_strips<A, O>; ++i) {
      E* q = arena.take<E>(strip_size<T, E>(shape.dim));
      E* dout = arena.take<E>(strip_size<T, E>(shape.value_dim));
      A* dq = arena.take<A>(dim * strip);
      O* q_panels = arena.take<O>(parts<T, O> * panels_size<A>(dim));
      O* dout_panels = arena.take<O>(parts<T, O> * panels_size<A>(value_dim));
      if (!memory) continue;
      Passing& x = strips[i];
      x.q = q, x.dout = dout, x.dq = dq, x.q_panels = q_panels, x.dout_panels = dout_panels;
    }
    see = arena.take<Visible<A>>(chain);
    pieces = arena.take<Made>(chain);
    auto make = [&](int64_t i, const Made& made) {
      if (memory) pieces[i] = made;
    };
    if constexpr (std::is_same_v<A, O>) {
      for (int64_t i = 0; i < chain; ++i) {
        A *s = arena.take<A>(piece), *dp = arena.take<A>(piece);
        make(i, in_place(s, dp));
      }
    } else {
      A *s = arena.take<A>(piece), *dp = arena.take<A>(piece);
      O* of_keys = reinterpret_cast<O*>(dp);
      if (parts<T, O> > 1) of_keys = arena.take<O>(parts<T, O> * piece);
      for (int64_t i = 0; i < chain; ++i) {
        O *p = arena.take<O>(parts<T, O> * piece), *ds = arena.take<O>(parts<T, O> * piece);
        make(i, {s, dp, p, ds, of_keys});
      }
    }
    k = arena.take<E>(keys_size<T, E>(shape.dim));
    v = arena.take<E>(keys_size<T, E>(shape.value_dim));
    k_values = std::is_same_v<A, E> ? nullptr : arena.take<O>(values_size<T, O>(shape.dim));
    rows = arena.take<A>(w * longest_row(parts<T, E> * dim, parts<T, E> * value_dim));
    block = arena.take<A>(careful_strips<T, O> * round_up(shape.dim, w) * strip);
    slope = has_slopes(p.score) ? arena.take<A>(tile_keys * strip) : nullptr;
    if (!plan.split) sums = KeySums<A>(arena, shape);
    if (!plan.split && plan.sums > 1) more = KeySums<A>(arena, shape);
    bytes = arena.used;
  }
};

// x times the size of the scale, whose sign is in the factor.
template <class A> struct ScaleBack {
  Vec<A> power, factor;
  explicit ScaleBack(double scale) {
    Scale<A> s = split_scale<A>(scale);
    power = Vec<A>::all(s.power), factor = Vec<A>::all(s.sign * s.size);
  }
  // Zeros are positive, as in unpack().
  FANANO_FN Vec<A> operator()(Vec<A> x) const { return fma(x * power, factor, Vec<A>::all(0)); }
};

// Rows of one head, and all keys that they see.
template <class T, class E> class Pass {
  using A = accumulator_t<T>;
  using O = summed_t<T, E>;
  using Passing = typename Scratch<T, E>::Passing;
  static constexpr int strip = strip_rows<A>;

  const Problem& p_;
  const Block b_;
  const Scratch<T, E>& scratch_;
  const KeySums<A>& sums_;
  const Differentiator<A> differentiate_{
      p_, b_, score_constants<A>(p_, b_.batch, b_.head, log2e<double>), scratch_.slope};
  const int64_t dim_ = p_.shape.dim, value_dim_ = p_.shape.value_dim;
  const Range rows_ = {b_.rows.begin, b_.used};
  const int64_t strips_ = round_up(rows_.size(), strip) / strip;

  // load: q and dout of a strip, packed and by panels
  void load_strip(Passing& x, Range r, const RowNumbers<A>& numbers) const {
    load_queries<T>(p_, b_, r, numbers, differentiate_.constants.scale.sign, x, scratch_.rows);
    load_dout<T>(p_, b_, r, x.dout, scratch_.rows);
    x.broken_q = load_finite_panels<A>(at<const T>(p_.q, b_.batch, b_.head, r.begin), p_.q.row,
                                       p_.q.column, r.size(), dim_, x.q_panels);
    with_out<T, E>(p_, [&]<class Out>() {
      const Tensor& t = p_.gradient.dout;
      x.broken_dout = load_finite_panels<A>(at<const Out>(t, b_.batch, b_.head, r.begin), t.row,
                                            t.column, r.size(), value_dim_, x.dout_panels);
    });
    for (int64_t i = 0; i < round_up(dim_, Vec<A>::width) * strip; ++i) x.dq[i] = 0;
  }

  // dq += dS k
  void add_queries(const Passing& x, Tile<E, O>& tile, int64_t n, const O* ds,
                   const Visible<A>& see) const {
    const Strip<A> one = Strip<A>::all(1);
    if ((together<O> == 1 && see.whole) || tile.ordinary_keys(dim_))
      return accumulate(ds, tile.k_values, n, dim_, one, x.dq);
    accumulate(ds, tile.k_values, n, dim_, one, x.dq, see, scratch_.block);
  }

  // An infinite dS has no parts, for 0 times it is NaN: its products are made as numbers, and 0
  // stands in its place.
  void add_infinite(const Passing& x, int64_t j0, int64_t n,
                    const typename Scratch<T, E>::Made& made) const {
    const T* q = at<const T>(p_.q, b_.batch, b_.head, x.rows.begin);
    const T* k = at<const T>(p_.k, b_.batch, b_.kv_head, j0);
    for (int64_t j = 0; j < n; ++j)
      for (int64_t i = 0; i < x.rows.size(); ++i) {
        int64_t of_row = j * strip + i, of_key = (j / 2 * strip + i) * 2 + j % 2;
        A ds = number(made.ds[of_row]);
        if (ds - ds == 0 || ds != ds) continue;
        for (int64_t d = 0; d < dim_; ++d) {
          A* dk = sums_.dk + (j0 + j) * sums_.dk_row + d;
          *dk += ds * number(q[i * p_.q.row + d * p_.q.column]);
          x.dq[d * strip + i] += ds * number(k[j * p_.k.row + d * p_.k.column]);
        }
        for (int part = 0; part < parts<T, O>; ++part)
          made.ds[of_row + part * made.part] = made.of_keys[of_key + part * made.part] = {0};
      }
  }

  // What is not finite of the rows, to dk and dv of the tile that begins at j0.
  void add_broken_rows(const Passing& x, int64_t j0, int64_t n,
                       const typename Scratch<T, E>::Made& made, const Visible<A>& see) const {
    add_broken(x.broken_q, at<const T>(p_.q, b_.batch, b_.head, x.rows.begin), p_.q.row,
               p_.q.column, n, dim_, made.ds, see, sums_.dk + j0 * sums_.dk_row, sums_.dk_row);
    with_out<T, E>(p_, [&]<class Out>() {
      const Tensor& t = p_.gradient.dout;
      add_broken(x.broken_dout, at<const Out>(t, b_.batch, b_.head, x.rows.begin), t.row, t.column,
                 n, value_dim_, made.p, see, sums_.dv + j0 * sums_.dv_row, sums_.dv_row);
    });
  }

  // A chain of rows, the strips [first, last), and a tile.
  void step(int64_t first, int64_t last, Tile<E, O>& tile) const {
    Range columns =
        b_.mask.columns({scratch_.strips[first].rows.begin, scratch_.strips[last - 1].rows.end});
    auto seen_of = [&](Range c) { return clamp(c.end - tile.j0, 0, tile.n); };
    int64_t n = seen_of(columns);
    if (columns.begin >= tile.j0 + n) return;

    WeightedBlock<A, O, parts<T, O>> of_k(panels_size<A>(dim_)), of_v(panels_size<A>(value_dim_));
    for (int64_t i = first; i < last; ++i) {
      const Passing& x = scratch_.strips[i];
      const typename Scratch<T, E>::Made& made = scratch_.pieces[i - first];
      Visible<A>& see = scratch_.see[i - first];
      int64_t seen = seen_of(b_.mask.columns(x.rows));
      if (seen == 0 || !differentiate_(x, tile, seen, true, see, made)) continue;
      if constexpr (parts<T, O> > 1)
        if (!finite(Operand<O>{made.ds, strip}, seen, strip)) add_infinite(x, tile.j0, seen, made);
      add_queries(x, tile, seen, made.of_keys, see);
      for (int64_t part = 0; part < parts<T, O> * made.part; part += made.part)
        end_weights<A>(made.p + part, seen, n), end_weights<A>(made.ds + part, seen, n);
      of_k.add({made.ds, x.q_panels, x.rows.size(), seen});
      of_v.add({made.p, x.dout_panels, x.rows.size(), seen});
      if (x.broken_q | x.broken_dout) add_broken_rows(x, tile.j0, seen, made, see);
    }
    // dk += dS^T q, dv += P^T dout
    add_rows(of_k, n, dim_, sums_.dk + tile.j0 * sums_.dk_row, sums_.dk_row);
    add_rows(of_v, n, value_dim_, sums_.dv + tile.j0 * sums_.dv_row, sums_.dv_row);
  }

  // finish: dq, times the scale
  void finish(const Passing& x) const {
    const ScaleBack<A> back(p_.score.scale);
    for (int64_t i = 0; i < dim_ * strip; i += Vec<A>::width)
      back(Vec<A>::load(x.dq + i)).store(x.dq + i);
    unpack(x.dq, Strip<A>::all(1), x.rows.size(), dim_,
           at<T>(p_.gradient.dq, b_.batch, b_.head, x.rows.begin), p_.gradient.dq.row,
           p_.gradient.dq.column, scratch_.rows);
  }

 public:
  Pass(const Problem& p, const Block& b, const Scratch<T, E>& scratch, const KeySums<A>& sums)
      : p_(p), b_(b), scratch_(scratch), sums_(sums) {}

  void run(const RowNumbers<A>& numbers) const {
    for (int64_t i = 0; i < strips_; ++i) {
      int64_t begin = rows_.begin + i * strip;
      load_strip(scratch_.strips[i], {begin, clamp(begin + strip, begin, rows_.end)}, numbers);
    }
    Range tiles = strips_ ? b_.mask.tiles(rows_, tile_keys) : Range{};
    int64_t end = strips_ ? b_.mask.columns(rows_).end : 0;
    for (int64_t j0 = tiles.begin * tile_keys; j0 < end; j0 += tile_keys) {
      int64_t n = clamp(end - j0, 0, tile_keys);
      Tile<E, O> tile = load_tile<T, O>(p_, b_, j0, n, scratch_.k, scratch_.v);
      if (strips_ >= many_strips) {
        gather(tile.k, n, dim_, scratch_.k);
        gather(tile.v, n, value_dim_, scratch_.v);
      }
      if constexpr (std::is_same_v<A, E>)
        tile.k_values = tile.k;
      else
        tile.k_values = load_values(at<const T>(p_.k, b_.batch, b_.kv_head, j0), p_.k.row,
                                    p_.k.column, n, dim_, scratch_.k_values);
      for (int64_t i = 0; i < strips_; i += chain_strips<A, O>)
        step(i, clamp(i + chain_strips<A, O>, i, strips_), tile);
    }
    for (int64_t i = 0; i < strips_; ++i) finish(scratch_.strips[i]);
    for (int64_t i = b_.used; i < b_.rows.end; ++i) {  // padding
      T* dq = at<T>(p_.gradient.dq, b_.batch, b_.head, i);
      for (int64_t d = 0; d < dim_; ++d) assign(dq[d * p_.gradient.dq.column], 0);
    }
  }
};

// The passes over one key head that belong to one of its sums.
template <class T, class E, class A>
void make_sum(const Problem& p, const BackwardPlan& plan, int64_t key_head, int64_t number,
              const Scratch<T, E>& scratch, const RowNumbers<A>& numbers, const KeySums<A>& sums) {
  constexpr int64_t rows = pass_strips<A, summed_t<T, E>> * strip_rows<A>;
  const Shape& s = p.shape;
  int64_t group = s.heads / s.kv_heads, first = key_head % s.kv_heads * group;
  int64_t passes = (s.queries + rows - 1) / rows;
  sums.clear();
  for (int64_t h = 0; h < group; ++h)
    for (int64_t i = 0; i < passes; ++i) {
      if ((h + i) % plan.sums != number) continue;
      Block b = head_block(p, key_head / s.kv_heads, first + h,
                           {i * rows, clamp((i + 1) * rows, 0, s.queries)});
      Pass<T, E>(p, b, scratch, sums).run(numbers);
    }
}

// finish: dk, times the scale, and dv of some keys.
template <class T>
void write_keys(const Problem& p, int64_t key_head, Range keys,
                const KeySums<accumulator_t<T>>& sums, accumulator_t<T>* row) {
  using A = accumulator_t<T>;
  const ScaleBack<A> back(p.score.scale);
  int64_t batch = key_head / p.shape.kv_heads, head = key_head % p.shape.kv_heads;
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    for (int64_t d = 0; d < sums.dk_row; d += Vec<A>::width)
      back(Vec<A>::load(sums.dk + j * sums.dk_row + d)).store(row + d);
    narrow(row, at<T>(p.gradient.dk, batch, head, j), p.gradient.dk.column, p.shape.dim);
    narrow(sums.dv + j * sums.dv_row, at<T>(p.gradient.dv, batch, head, j), p.gradient.dv.column,
           p.shape.value_dim);
  }
}

// A sum that stands in the workspace, after the numbers of the rows.
template <class A>
KeySums<A> shared_sums(const Problem& p, const BackwardPlan& plan, int64_t index, void* workspace) {
  Arena arena{static_cast<char*>(workspace) + plan.row_bytes + index * plan.sum_bytes};
  return {arena, p.shape};
}

}  // namespace

int64_t pass_rows(const Problem& p) {
  int64_t rows = 0;
  with_terms(p, [&]<class T, class E>() {
    using A = accumulator_t<T>;
    rows = pass_strips<A, summed_t<T, E>> * strip_rows<A>;
  });
  return rows;
}

int64_t key_sums(const Problem& p) {
  Arena arena{nullptr};
  with_accumulator(p.dtype, [&]<class A>() { KeySums<A>(arena, p.shape); });
  return arena.used;
}

int64_t backward_scratch(const Problem& p, const BackwardPlan& plan) {
  int64_t bytes = 0;
  with_terms(p, [&]<class T, class E>() { Scratch<T, E>(nullptr, p, plan, bytes); });
  for (int64_t other : {row_scratch(p), bias_scratch(p)}) bytes = other > bytes ? other : bytes;
  return bytes;
}

// A key head; or one of its sums, to be added to the others later.
void backward_keys(const Problem& p, const BackwardPlan& plan, int64_t task, void* memory,
                   void* workspace) {
  with_terms(p, [&]<class T, class E>() {
    using A = accumulator_t<T>;
    [[maybe_unused]] const Ready<E> ready;
    int64_t bytes;
    const Scratch<T, E> scratch(memory, p, plan, bytes);
    const RowNumbers<A> numbers(workspace, p.shape);
    if (plan.split)
      return make_sum<T>(p, plan, task / plan.sums, task % plan.sums, scratch, numbers,
                         shared_sums<A>(p, plan, task, workspace));
    const Range all{0, p.shape.keys};
    make_sum<T>(p, plan, task, 0, scratch, numbers, scratch.sums);
    for (int64_t i = 1; i < plan.sums; ++i) {
      make_sum<T>(p, plan, task, i, scratch, numbers, scratch.more);
      scratch.sums.add(scratch.more, all);
    }
    write_keys<T>(p, task, all, scratch.sums, scratch.rows);
  });
}

// The sums of one tile of keys, added in order.
void backward_add(const Problem& p, const BackwardPlan& plan, int64_t task, void* memory,
                  void* workspace) {
  with_type(p.dtype, [&]<class T>() {
    using A = accumulator_t<T>;
    int64_t tiles = (p.shape.keys + tile_keys - 1) / tile_keys, key_head = task / tiles;
    Range keys{task % tiles * tile_keys, (task % tiles + 1) * tile_keys};
    if (keys.end > p.shape.keys) keys.end = p.shape.keys;
    KeySums<A> sums = shared_sums<A>(p, plan, key_head * plan.sums, workspace);
    for (int64_t i = 1; i < plan.sums; ++i)
      sums.add(shared_sums<A>(p, plan, key_head * plan.sums + i, workspace), keys);
    write_keys<T>(p, key_head, keys, sums, static_cast<A*>(memory));
  });
}

}  // namespace fanano::FANANO_ISA
