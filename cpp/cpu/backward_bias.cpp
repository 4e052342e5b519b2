// dbias, the gradient of an additive mask: dS, summed over all that the mask was broadcast to. It
// is made of P and dS computed once more, tile by tile of the mask, so that each task owns what it
// writes, sums are made in one order, and nothing of the size of the scores is stored.
#include "entry_points.hpp"

#include "gradients.hpp"

namespace fanano::FANANO_ISA {

namespace {

template <class A> inline constexpr int64_t block_strips = block_rows<A> / strip_rows<A>;

// A: accumulator, E: terms of the products, T: type of what they are made from.
template <class T, class E> struct Scratch {
  using A = accumulator_t<T>;
  Pieces<A, A> made;
  E *k, *v;
  A* rows;
  A* sums;  // of a block of rows and a tile of keys, as s: [strip][key][row]
  Queries<A, E>* queries;
  Visible<A>* see;

  Scratch(void* memory, const Problem& p, int64_t& bytes) {
    constexpr int w = Vec<A>::width, strip = strip_rows<A>;
    const Shape& shape = p.shape;
    Arena arena{static_cast<char*>(memory)};
    int64_t dim = parts<T, E> * packed_dim<A, E>(shape.dim);
    int64_t value_dim = parts<T, E> * packed_dim<A, E>(shape.value_dim);
    queries = arena.take<Queries<A, E>>(block_strips<A>);
    for (int64_t i = 0; i < block_strips<A>; ++i) {
      E* q = arena.take<E>(strip_size<T, E>(shape.dim));
      E* dout = arena.take<E>(strip_size<T, E>(shape.value_dim));
      if (memory) queries[i].q = q, queries[i].dout = dout;
    }
    made = in_place(arena.take<A>(tile_keys * strip), arena.take<A>(tile_keys * strip));
    k = arena.take<E>(keys_size<T, E>(shape.dim));
    v = arena.take<E>(keys_size<T, E>(shape.value_dim));
    rows = arena.take<A>(w * std::max<int64_t>(longest_row(dim, value_dim), tile_keys));
    sums = arena.take<A>(block_rows<A> * tile_keys);
    see = arena.take<Visible<A>>(1);
    bytes = arena.used;
  }
};

// What a task adds up: all of an axis along which the mask was broadcast, a part of the others.
struct Part { Range batches, heads, blocks, tiles; };

// The task's number runs through tiles, blocks, heads and batches of the mask itself.
Part part_of(const Problem& p, int64_t rows, int64_t task) {
  const Gradient& g = p.gradient;
  auto next = [&](bool own, int64_t count) {
    if (!own) return Range{0, count};
    int64_t i = task % count;
    task /= count;
    return Range{i, i + 1};
  };
  Part part;
  part.tiles = next(g.bias_column, (p.shape.keys + tile_keys - 1) / tile_keys);
  part.blocks = next(g.bias_row, (p.shape.queries + rows - 1) / rows);
  part.heads = next(g.bias_head, p.shape.heads);
  part.batches = next(g.bias_batch, p.shape.batch);
  return part;
}

template <class T, class E> class BiasPart {
  using A = accumulator_t<T>;
  static constexpr int strip = strip_rows<A>;

  const Problem& p_;
  const Part part_;
  const Scratch<T, E>& scratch_;

  A* sums(int64_t i) const { return scratch_.sums + i * tile_keys * strip; }

  // sums += dS
  void add(int64_t i, int64_t n) const {
    for (int64_t at = 0; at < n * strip; at += Vec<A>::width)
      (Vec<A>::load(sums(i) + at) + Vec<A>::load(scratch_.made.ds + at)).store(sums(i) + at);
  }

  // One block of rows of one head.
  void add_block(const Block& b, const RowNumbers<A>& numbers) const {
    const Range rows{b.rows.begin, b.used};
    if (rows.size() == 0) return;
    const Differentiator<A> differentiate{
        p_, b, score_constants<A>(p_, b.batch, b.head, log2e<double>), nullptr};
    int64_t strips = round_up(rows.size(), strip) / strip;
    for (int64_t i = 0; i < strips; ++i) {
      int64_t begin = rows.begin + i * strip;
      Range r{begin, clamp(begin + strip, begin, rows.end)};
      Queries<A, E>& x = scratch_.queries[i];
      load_queries<T>(p_, b, r, numbers, differentiate.constants.scale.sign, x, scratch_.rows);
      load_dout<T>(p_, b, r, x.dout, scratch_.rows);
    }
    Range tiles = b.mask.tiles(rows, tile_keys);
    tiles.begin = clamp(tiles.begin, part_.tiles.begin, part_.tiles.end);
    tiles.end = clamp(tiles.end, part_.tiles.begin, part_.tiles.end);
    int64_t end = b.mask.columns(rows).end;
    for (int64_t j0 = tiles.begin * tile_keys; j0 < tiles.end * tile_keys; j0 += tile_keys) {
      Tile<E> tile =
          load_tile<T, E>(p_, b, j0, clamp(end - j0, 0, tile_keys), scratch_.k, scratch_.v);
      for (int64_t i = 0; i < strips; ++i) {
        if (differentiate(scratch_.queries[i], tile, tile.n, false, *scratch_.see, scratch_.made))
          add(i, tile.n);
      }
    }
  }

  // Elements of a row or a column that are one in the mask become one.
  double sum(Range rows, Range keys) const {
    double total = 0;
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t j = keys.begin; j < keys.end; ++j)
        total += double(sums(row / strip)[j * strip + row % strip]);
    return total;
  }

  template <class U> void write() const {
    const Gradient& g = p_.gradient;
    const Tensor& t = g.dbias;
    Range rows{part_.blocks.begin * block_rows<A>, part_.blocks.end * block_rows<A>};
    Range keys{part_.tiles.begin * tile_keys, part_.tiles.end * tile_keys};
    int64_t here = g.bias_row ? clamp(p_.shape.queries - rows.begin, 0, block_rows<A>) : 1;
    int64_t there = g.bias_column ? clamp(p_.shape.keys - keys.begin, 0, tile_keys) : 1;
    U* to = static_cast<U*>(t.data);
    if (g.bias_batch) to += part_.batches.begin * t.batch;
    if (g.bias_head) to += part_.heads.begin * t.head;
    if (g.bias_row) to += rows.begin * t.row;
    if (g.bias_column) to += keys.begin * t.column;
    if (g.bias_row && g.bias_column) {
      for (int64_t i = 0; i < here; i += strip)
        unpack(sums(i / strip), Strip<A>::all(1), clamp(here - i, 0, strip), there, to + i * t.row,
               t.row, t.column, scratch_.rows);
      return;
    }
    for (int64_t i = 0; i < here; ++i)
      for (int64_t j = 0; j < there; ++j)
        assign(to[i * t.row + j * t.column],
               A(sum(g.bias_row ? Range{i, i + 1} : Range{0, block_rows<A>},
                     g.bias_column ? Range{j, j + 1} : Range{0, tile_keys})));
  }

 public:
  BiasPart(const Problem& p, int64_t task, const Scratch<T, E>& scratch)
      : p_(p), part_(part_of(p, block_rows<A>, task)), scratch_(scratch) {}

  void run(const RowNumbers<A>& numbers) const {
    for (int64_t i = 0; i < block_rows<A> * tile_keys; ++i) scratch_.sums[i] = 0;
    for (int64_t batch = part_.batches.begin; batch < part_.batches.end; ++batch)
      for (int64_t head = part_.heads.begin; head < part_.heads.end; ++head)
        for (int64_t i = part_.blocks.begin; i < part_.blocks.end; ++i) {
          Range rows{i * block_rows<A>, (i + 1) * block_rows<A>};
          if (rows.end > p_.shape.queries) rows.end = p_.shape.queries;
          add_block(head_block(p_, batch, head, rows), numbers);
        }
    with_type(p_.mask_dtype, [&]<class U>() { write<U>(); });
  }
};

}  // namespace

int64_t bias_scratch(const Problem& p) {
  int64_t bytes = 0;
  if (p.gradient.bias) with_terms(p, [&]<class T, class E>() { Scratch<T, E>(nullptr, p, bytes); });
  return bytes;
}

// A block of rows and a tile of keys of the mask, or all of them where it has one of either.
void backward_bias(const Problem& p, const BackwardPlan&, int64_t task, void* memory,
                   void* workspace) {
  with_terms(p, [&]<class T, class E>() {
    using A = accumulator_t<T>;
    [[maybe_unused]] const Ready<E> ready;
    int64_t bytes;
    const Scratch<T, E> scratch(memory, p, bytes);
    BiasPart<T, E>(p, task, scratch).run(RowNumbers<A>(workspace, p.shape));
  });
}

}  // namespace fanano::FANANO_ISA
