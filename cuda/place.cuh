// Which rows and columns of which head a block computes.
#pragma once

#include "../cpp/math/mask.hpp"
#include "../cpp/problem.hpp"

namespace fanano::cuda {

// One query head of one sequence.
struct Head {
  int64_t batch, head, kv_head;
  Sequence sequence;
  Mask mask;

  __device__ Head(const Problem& p, int64_t batch_, int64_t head_)
      : batch(batch_), head(head_), kv_head(head_ / (p.shape.heads / p.shape.kv_heads)),
        sequence(fanano::sequence(batch, p.shape.queries, p.shape.keys, p.lengths.queries,
                                  p.lengths.keys, p.lengths.q_offset)),
        mask(make_mask(sequence, p.window.left, p.window.right)) {}
};

// Of a matrix for each of some heads of each sequence; blocks are numbered columns first.
// first: in_grids().
struct Block {
  int64_t batch, head, row0, column0;

  __device__ Block(int64_t heads, int64_t rows, int rows_together, int64_t columns,
                   int columns_together, int64_t first) {
    const int64_t across = blocks_of(columns, columns_together);
    const int64_t down = blocks_of(rows, rows_together);
    int64_t block = first + blockIdx.x;
    column0 = block % across * columns_together, block /= across;
    row0 = block % down * rows_together, block /= down;
    head = block % heads, batch = block / heads;
  }

  // A matrix without columns has a block for its rows, too: there may be an lse.
  static __host__ __device__ int64_t blocks_of(int64_t n, int together) {
    return n > together ? (n + together - 1) / together : 1;
  }
};

// Of the matrix (queries, columns) of every head.
struct Place : Head {
  int64_t row0, column0;

  __device__ Place(const Problem& p, int rows, int64_t columns, int columns_together, int64_t first)
      : Place(p, Block(p.shape.heads, p.shape.queries, rows, columns, columns_together, first)) {}

  // How many blocks such places need.
  static int64_t count(const Shape& s, int rows, int64_t columns, int columns_together) {
    return s.batch * s.heads * Block::blocks_of(s.queries, rows) *
           Block::blocks_of(columns, columns_together);
  }

 private:
  __device__ Place(const Problem& p, const Block& b)
      : Head(p, b.batch, b.head), row0(b.row0), column0(b.column0) {}
};

}  // namespace fanano::cuda
