// Flash attention for few queries, forward. Such a problem is bound by the memory that k and v come
// from, so all rows of the query heads that share a key head pass each tile together, and the keys
// may be spread over threads (flash decoding).
//
// The keys are cut into chunks at multiples of decode_chunk in absolute position. Each chunk's
// state (m, l, o) is made from nothing, and the states are merged in the order of the keys: by one
// thread as it goes along, or after many have made one each. Neither shows in the bits.
#include "entry_points.hpp"

#include "absorb.hpp"
#include "block.hpp"
#include "decode_tile.hpp"
#include "kept.hpp"
#include "logits.hpp"

namespace fanano::FANANO_ISA {

namespace {

// The state of all rows of a team: [row], [row], [row][column].
template <class A> struct Partial {
  A *m, *l, *o;
  static int64_t size(const Team& t) {
    constexpr int w = Vec<A>::width;
    return round_up(t.most_rows, w) * 2 + t.most_rows * round_up(t.value_dim, w);
  }
  Partial(A* memory, const Team& t)
      : m(memory), l(m + round_up(t.most_rows, Vec<A>::width)),
        o(l + round_up(t.most_rows, Vec<A>::width)) {}
};

template <class A> struct Scratch {
  A *q, *s, *k, *v, *bias, *largest, *alpha, *row, *broken, *whole, *part;

  Scratch(void* memory, const Team& t, int64_t& bytes) {
    constexpr int w = Vec<A>::width;
    Arena arena{static_cast<char*>(memory)};
    int64_t dim = round_up(t.dim, w), value_dim = round_up(t.value_dim, w);
    int64_t rows = round_up(t.most_rows, w);
    q = arena.take<A>(rows * dim);
    s = arena.take<A>(rows * decode_keys);
    k = arena.take<A>(decode_keys * dim);
    v = arena.take<A>(decode_keys * value_dim);
    bias = arena.take<A>(decode_keys);
    largest = arena.take<A>(rows), alpha = arena.take<A>(rows), broken = arena.take<A>(rows);
    row = arena.take<A>(value_dim);
    whole = arena.take<A>(Partial<A>::size(t)), part = arena.take<A>(Partial<A>::size(t));
    bytes = arena.used;
  }
};

// T is the type of q, k and v.
template <class T> class Decode {
  using A = accumulator_t<T>;
  static constexpr int w = Vec<A>::width;

  const Problem& p_;
  const Team t_;
  const Scratch<A>& scratch_;
  const int64_t queries_ = t_.queries, rows_ = t_.heads * queries_;
  const int64_t dim_ = round_up(t_.dim, w), value_dim_ = round_up(t_.value_dim, w);
  const Mask mask_ = block(0).mask;
  const A unit_ = constants(0).factor, kept_factor_ = Kept<A>(p_, block(0)).factor;

  // Head h of the team.
  FANANO_FN Block block(int64_t h) const {
    return head_block(p_, t_.batch, t_.head + h, {0, p_.shape.queries});
  }
  FANANO_FN ScoreConstants<A> constants(int64_t h) const {
    return score_constants<A>(p_, t_.batch, t_.head + h, log2e<double>);
  }
  template <class F> FANANO_FN void for_each_row(F f) const {
    for (int64_t h = 0; h < t_.heads; ++h)
      for (int64_t i = 0; i < queries_; ++i) f(h, i, h * queries_ + i);
  }

  // load: q, with the sign of the scale; columns are filled up with zeros
  void load_queries() const {
    const A sign = constants(0).scale.sign;
    for_each_row([&](int64_t h, int64_t i, int64_t r) {
      A* to = scratch_.q + r * dim_;
      widen(at<const T>(p_.q, t_.batch, t_.head + h, i), p_.q.column, to, t_.dim);
      for (int64_t d = 0; d < t_.dim; ++d) to[d] *= sign;
      for (int64_t d = t_.dim; d < dim_; ++d) to[d] = 0;
    });
  }

  // load: a tile with its columns filled up; where need be, in a buffer
  bool in_place() const {
    return p_.k.column == 1 && p_.v.column == 1 && t_.dim == dim_ && t_.value_dim == value_dim_;
  }
  Operand<A> load_padded(const Tensor& x, int64_t j0, int64_t n, int64_t dim, A* buffer) const {
    int64_t padded = round_up(dim, w);
    for (int64_t j = 0; j < n; ++j) {
      widen(at<const T>(x, t_.batch, t_.kv_head, j0 + j), x.column, buffer + j * padded, dim);
      for (int64_t d = dim; d < padded; ++d) buffer[j * padded + d] = 0;
    }
    return {buffer, padded};
  }

  // mask: the logits of one row, -inf where it does not see; returns whether it sees all n keys
  bool logits_of_row(const Block& b, const ScoreConstants<A>& c, int64_t i, int64_t j0, int64_t n,
                     A* s, A& most) const {
    Range seen = mask_.columns(i);
    int64_t begin = clamp(seen.begin - j0, 0, n), end = clamp(seen.end - j0, begin, n);
    const A* bias = nullptr;
    if (b.elements.additive()) {
      with_type(b.elements.dtype, [&]<class E>() {
        load_addends(b.elements.at<E>(i, j0), b.elements.column, scratch_.bias, n);
      });
      bias = scratch_.bias;
    }
    if (!c.plain) {
      const Slope<A> slope(c.slope, mask_, i, j0);
      auto all = [](A x) { return Vec<A>::all(x); };
      for (int64_t j = 0; j < n; j += w) {
        Vec<A> y = capped(c, Vec<A>::load(s + j)), column;
        for (int lane = 0; lane < w; ++lane) column.v[lane] = A(j + lane);
        if (c.slope != 0) y = sloped(all(slope.high), all(slope.low), all(slope.minus), column, y);
        if (bias) y = biased(y, clamp_above(Vec<A>::load(bias + j)));
        y.store(s + j);
      }
    } else if (c.scale.power != 1) {
      for (int64_t j = 0; j < n; ++j) s[j] *= c.scale.power;
    }
    if (b.elements.boolean()) {
      auto x = b.elements.at<uint8_t>(i, j0);
      for (int64_t j = 0; j < n; ++j) s[j] = shows(x[j * b.elements.column]) ? s[j] : -infinity<A>;
    }
    for (int64_t j = 0; j < begin; ++j) s[j] = -infinity<A>;
    for (int64_t j = end; j < round_up(n, w); ++j) s[j] = -infinity<A>;
    Vec<A> largest = Vec<A>::all(-infinity<A>);
    for (int64_t j = 0; j < n; j += w) largest = max(largest, Vec<A>::load(s + j));
    most = largest.v[0];
    for (int lane = 1; lane < w; ++lane) most = largest.v[lane] > most ? largest.v[lane] : most;
    return begin == 0 && end == n && !b.elements.data;
  }

  // absorb: s becomes p; returns its sum
  A weigh_row(A m, int64_t n, Weights<A> weights, A* s) const {
    const Vec<A> minus = Vec<A>::all(-pivot(m)), unit = Vec<A>::all(unit_);
    Vec<A> sum = Vec<A>::all(0);
    auto each = [&](auto exponent_of) {
      for (int64_t j = 0; j < n; j += w) {
        Vec<A> p = exp2(exponent_of(Vec<A>::load(s + j)), weights.lowest);
        p.store(s + j);
        sum = sum + p;
      }
    };
    bool huge = m > huge_exponent<A> || m < -huge_exponent<A>;
    if (huge || weights.least > -infinity<A>)
      each([&](Vec<A> x) { return careful_exponent(x, unit, minus, weights.least); });
    else
      each([&](Vec<A> x) { return exponent(x, unit, minus); });
    return sum_of_lanes(sum);
  }

  // accumulate, where a tile's values are not all finite and some rows see only a part of them: a
  // sum that is not finite is made again of what its row sees.
  template <class U> void accumulate_seen(Operand<U> v, int64_t j0, int64_t n, A* o) const {
    const A one = 1;
    Ahead nothing;
    for_each_row([&](int64_t h, int64_t i, int64_t r) {
      const Elements elements = block(h).elements;
      const A* p = scratch_.s + r * decode_keys;
      A* sum = scratch_.row;
      for (int64_t d = 0; d < value_dim_; ++d) sum[d] = 0;
      sums<1>(p, v, n, value_dim_, &one, sum, nothing);
      bool seen[decode_keys];
      for (int64_t j = 0; j < n; ++j) {
        seen[j] = mask_.visible(i, j0 + j);
        if (seen[j] && elements.data)
          with_element(elements.dtype,
                       [&]<class E>() { seen[j] = shows(*elements.at<E>(i, j0 + j)); });
      }
      for (int64_t d = 0; d < value_dim_; ++d) {
        if (sum[d] - sum[d] != 0) {
          Vec<A> again = Vec<A>::all(0);
          for (int64_t j = 0; j < n; ++j)
            if (seen[j])
              again = fma(Vec<A>::all(number(v.data[j * v.row + d])), Vec<A>::all(p[j]), again);
          sum[d] = again.v[0];
        }
        A& to = o[r * value_dim_ + d];
        to = fma(Vec<A>::all(to), Vec<A>::all(scratch_.alpha[r]), Vec<A>::all(sum[d])).v[0];
      }
    });
  }

  // One tile passes all rows. What comes next is asked for ahead: v while k is in use, then k.
  template <class U>
  void step(Operand<U> k, Operand<U> v, int64_t j0, int64_t n, A headroom, bool more,
            Partial<A> x) const {
    const Scratch<A>& z = scratch_;
    // score
    Ahead values, keys;
    if (in_place()) values = Ahead::of(v.data, v.row, n, value_dim_);
    if (in_place() && more) keys = Ahead::of(k.data + n * k.row, k.row, n, dim_);
    in_groups<4>(rows_, [&]<int R>(int64_t r) {
      for (int64_t j = 0; j < n; j += 4) {
        for (int64_t i = 0; r == 0 && i < 4; ++i) values.ask(values.bytes);
        dots<R>(z.q + r * dim_, dim_, k, j, n, z.s + r * decode_keys);
      }
    });
    // mask
    bool whole = true;
    for (int64_t h = 0; h < t_.heads; ++h) {
      const Block b = block(h);
      const ScoreConstants<A> c = constants(h);
      for (int64_t i = 0, r = h * queries_; i < queries_; ++i, ++r)
        whole &= logits_of_row(b, c, i, j0, n, z.s + r * decode_keys, z.largest[r]);
    }
    // absorb
    for (int64_t r = 0; r < rows_; r += w) {
      Vec<A> m = Vec<A>::load(x.m + r), l = Vec<A>::load(x.l + r);
      absorb(m, l, Vec<A>::load(z.largest + r), unit_, headroom).store(z.alpha + r);
      m.store(x.m + r), l.store(x.l + r);
    }
    for (int64_t r = 0; r < rows_; ++r)
      x.l[r] += weigh_row(x.m[r], n, weights(headroom), z.s + r * decode_keys);
    if (p_.dropout.p > 0)
      for_each_row([&](int64_t h, int64_t i, int64_t r) {
        Kept<A>(p_, block(h)).drop_row(i, j0, n, z.s + r * decode_keys);
      });
    // accumulate
    if (!whole && !finite(v, n, value_dim_)) return accumulate_seen(v, j0, n, x.o);
    in_groups<4>(rows_, [&]<int R>(int64_t r) {
      sums<R>(z.s + r * decode_keys, v, n, value_dim_, z.alpha + r, x.o + r * value_dim_, keys);
    });
  }

  // The state after the keys of one chunk alone.
  void chunk(int64_t index, A headroom, Partial<A> x) const {
    fill(x.m, round_up(rows_, w), -infinity<A>);
    fill(x.l, round_up(rows_, w), 0);
    fill(x.o, rows_ * value_dim_, 0);
    fill(scratch_.largest, round_up(rows_, w), -infinity<A>);
    Range columns = mask_.columns(Range{0, queries_});
    int64_t begin = index * decode_chunk, end = clamp(columns.end, begin, begin + decode_chunk);
    if (columns.begin > begin) begin = columns.begin / decode_keys * decode_keys;
    for (int64_t j0 = begin; j0 < end; j0 += decode_keys) {
      int64_t n = clamp(end - j0, 0, decode_keys);
      if (in_place())
        step<T>({at<const T>(p_.k, t_.batch, t_.kv_head, j0), p_.k.row},
                {at<const T>(p_.v, t_.batch, t_.kv_head, j0), p_.v.row}, j0, n, headroom,
                j0 + 2 * decode_keys <= end, x);
      else
        step<A>(load_padded(p_.k, j0, n, t_.dim, scratch_.k),
                load_padded(p_.v, j0, n, t_.value_dim, scratch_.v), j0, n, headroom, false, x);
    }
  }

  static void fill(A* x, int64_t n, A value) {
    for (int64_t i = 0; i < n; ++i) x[i] = value;
  }

  // What was seen so far and the next chunk (online_softmax.hpp's merge()).
  void merge(Partial<A> whole, Partial<A> part, A headroom) const {
    for (int64_t r = 0; r < rows_; r += w) {
      Vec<A> a = Vec<A>::load(whole.m + r), b = Vec<A>::load(part.m + r), m = max(a, b);
      Vec<A> of_whole = rescaling(a, m, headroom), of_part = rescaling(b, m, headroom);
      Vec<A> l = Vec<A>::load(whole.l + r) * of_whole + Vec<A>::load(part.l + r) * of_part;
      m.store(whole.m + r), l.store(whole.l + r);
      of_whole.store(scratch_.largest + r), of_part.store(scratch_.alpha + r);
    }
    for (int64_t r = 0; r < rows_; ++r) {
      Vec<A> of_whole = Vec<A>::all(scratch_.largest[r]), of_part = Vec<A>::all(scratch_.alpha[r]);
      for (int64_t d = 0; d < value_dim_; d += w) {
        A* o = whole.o + r * value_dim_ + d;
        Vec<A> more = Vec<A>::load(part.o + r * value_dim_ + d) * of_part;
        fma(Vec<A>::load(o), of_whole, more).store(o);
      }
    }
  }

  // All chunks, made here or (states not null) taken from where they were left.
  Partial<A> stream(A headroom, A* states) const {
    Partial<A> whole(scratch_.whole, t_), part(scratch_.part, t_);
    fill(whole.m, round_up(rows_, w), -infinity<A>);
    fill(whole.l, round_up(rows_, w), 0);
    fill(whole.o, rows_ * value_dim_, 0);
    for_each_row([&](int64_t h, int64_t, int64_t r) {
      OnlineSoftmax<A> first = sink_state(block(h).sink, headroom);
      whole.m[r] = first.m, whole.l[r] = first.l;
    });
    Range chunks = mask_.tiles(Range{0, queries_}, decode_chunk);
    for (int64_t i = chunks.begin; i < chunks.end; ++i) {
      if (states)
        part = Partial<A>(states + i * Partial<A>::size(t_), t_);
      else
        chunk(i, headroom, part);
      merge(whole, part, headroom);
    }
    return whole;
  }

  // out = o / l, which is left in scratch_.row; returns 0, or NaN where it is not all finite
  A normalised(Partial<A> whole, int64_t r) const {
    Vec<A> factor = inverse(Vec<A>::all(whole.l[r])) * Vec<A>::all(kept_factor_);
    Vec<A> mark = Vec<A>::all(0);
    for (int64_t d = 0; d < value_dim_; d += w) {
      Vec<A> x = fma(Vec<A>::load(whole.o + r * value_dim_ + d), factor, Vec<A>::all(0));
      x.store(scratch_.row + d);
      mark = mark + (x - x);
    }
    return sum_of_lanes(mark);
  }

 public:
  Decode(const Problem& p, const Team& team, const Scratch<A>& scratch)
      : p_(p), t_(team), scratch_(scratch) {}

  void one_chunk(int64_t index, A* states) const {
    Range chunks = mask_.tiles(Range{0, queries_}, decode_chunk);
    if (!rows_ || index < chunks.begin || index >= chunks.end) return;
    load_queries();
    chunk(index, 0, Partial<A>(states + index * Partial<A>::size(t_), t_));
  }

  // All of a team, into results of the type Out; what overflowed on the way again.
  template <class Out> void run(A* states) const {
    auto out = [&](int64_t h, int64_t i) { return at<Out>(p_.out, t_.batch, t_.head + h, i); };
    if (rows_) {
      load_queries();
      Partial<A> whole = stream(0, states);
      bool again = false;
      for_each_row([&](int64_t h, int64_t i, int64_t r) {
        again |= (scratch_.broken[r] = normalised(whole, r)) != 0;
        narrow(scratch_.row, out(h, i), p_.out.column, t_.value_dim);
        if (!p_.lse.data) return;
        double sink = block(h).sink;
        OnlineSoftmax<A> first = sink_state(sink, A(0));
        bool sink_alone = whole.m[r] == first.m && whole.l[r] == first.l;
        *at<A>(p_.lse, t_.batch, t_.head + h, i) =
            A(sink_alone ? sink : lse(double(whole.m[r]), double(whole.l[r])));
      });
      if (again) {
        whole = stream(overflow_headroom, nullptr);
        for_each_row([&](int64_t h, int64_t i, int64_t r) {
          if (scratch_.broken[r] == 0) return;
          normalised(whole, r);
          replace_broken(scratch_.row, out(h, i), p_.out.column, t_.value_dim);
        });
      }
    }
    for (int64_t h = 0; h < t_.heads; ++h) finish_padding<A, Out>(p_, block(h));
  }
};

// f.template operator()<T, Out>(decode, team) for the kernel of one team.
template <class F>
void with_team(const Problem& p, int64_t batch, int64_t team, void* memory, F f) {
  with_types(p.dtype, p.out_dtype, [&]<class T, class Out>() {
    Team t = team_of(p, batch, team);
    int64_t bytes;
    Scratch<accumulator_t<T>> scratch(memory, t, bytes);
    f.template operator()<T, Out>(Decode<T>(p, t, scratch), t);
  });
}

template <class A> A* states_of(void* workspace, const Plan& plan, int64_t task, const Team& t) {
  return static_cast<A*>(workspace) + task * plan.splits * Partial<A>::size(t);
}

}  // namespace

int64_t decode_scratch(const Problem& p) {
  const Team t = team_of(p, 0, 0);
  int64_t bytes = 0;
  with_accumulator(p.dtype, [&]<class A>() { Scratch<A>(nullptr, t, bytes); });
  return bytes;
}

int64_t decode_state(const Problem& p) {
  const Team t = team_of(p, 0, 0);
  int64_t bytes = 0;
  with_accumulator(p.dtype, [&]<class A>() { bytes = Partial<A>::size(t) * int64_t(sizeof(A)); });
  return bytes;
}

void decode_split(const Problem& p, const Plan& plan, int64_t task, void* memory, void* workspace) {
  int64_t team = task / plan.splits, teams = teams_of(p.shape);
  with_team(p, team / teams, team % teams, memory,
            [&]<class T, class>(const auto& decode, const Team& t) {
              decode.one_chunk(task % plan.splits,
                               states_of<accumulator_t<T>>(workspace, plan, team, t));
            });
}

void decode(const Problem& p, const Plan& plan, int64_t task, void* memory, void* workspace) {
  int64_t teams = teams_of(p.shape);
  with_team(p, task / teams, task % teams, memory,
            [&]<class T, class Out>(const auto& decode, const Team& t) {
              using A = accumulator_t<T>;
              A* states = workspace ? states_of<A>(workspace, plan, task, t) : nullptr;
              decode.template run<Out>(states);
            });
}

}  // namespace fanano::FANANO_ISA
