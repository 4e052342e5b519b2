// A block of query rows of one head, and the views of memory that belong to it.
#pragma once

#include "../plan.hpp"
#include "convert.hpp"
#include "visible.hpp"

namespace fanano::FANANO_ISA {

// Rows of one head.
struct Block {
  int64_t batch, head, kv_head;
  Range rows;  // all rows of the block; those from `used` on are padding
  int64_t used;
  int64_t queries;  // of the sequence, used
  Mask mask;
  Elements elements;
  double sink;  // -inf: none
};

FANANO_FN Block head_block(const Problem& p, int64_t batch, int64_t head, Range rows) {
  const Shape& shape = p.shape;
  Block b;
  b.batch = batch, b.head = head;
  b.kv_head = head / (shape.heads / shape.kv_heads);
  Sequence s = sequence(batch, shape.queries, shape.keys, p.lengths.queries, p.lengths.keys,
                        p.lengths.q_offset);
  b.rows = rows;
  b.used = clamp(s.queries, rows.begin, rows.end), b.queries = s.queries;
  b.mask = make_mask(s, p.window.left, p.window.right);
  if (p.mask.data)
    b.elements = {static_cast<char*>(p.mask.data) +
                      (batch * p.mask.batch + head * p.mask.head) * size_of(p.mask_dtype),
                  p.mask_dtype, p.mask.row, p.mask.column};
  b.sink = p.score.sinks ? p.score.sinks[head] : -infinity<double>;
  return b;
}

template <class T> FANANO_FN T* at(const Tensor& t, int64_t batch, int64_t head, int64_t row) {
  return static_cast<T*>(t.data) + batch * t.batch + head * t.head + row * t.row;
}

// The longest row that is turned between [row][column] and [column][row]: of q or o.
FANANO_FN int64_t longest_row(int64_t dim, int64_t value_dim) {
  return dim > value_dim ? dim : value_dim;
}

// Zeros and an lse of -inf for the rows beyond q_lengths.
template <class A, class Out> void finish_padding(const Problem& p, const Block& b) {
  for (int64_t i = b.used; i < b.rows.end; ++i) {
    Out* out = at<Out>(p.out, b.batch, b.head, i);
    for (int64_t d = 0; d < p.shape.value_dim; ++d) assign(out[d * p.out.column], 0);
    if (p.lse.data) *at<A>(p.lse, b.batch, b.head, i) = -infinity<A>;
  }
}

// Hands out pieces of a thread's scratch memory, each on a cache line. Run once without memory, it
// counts what is needed.
struct Arena {
  char* begin;
  int64_t used = 0;
  template <class U> FANANO_FN U* take(int64_t count) {
    U* piece = begin ? reinterpret_cast<U*>(begin + used) : nullptr;
    used += round_up(count * int64_t(sizeof(U)), 64);
    return piece;
  }
};

}  // namespace fanano::FANANO_ISA
