// Which rows and columns of which head a block computes.
#pragma once

#include "../cpp/math/mask.hpp"
#include "../cpp/problem.hpp"

namespace fanano::cuda {

// Of the matrix (queries, columns) of every head; blocks are numbered columns first.
struct Place {
  int64_t batch, head, kv_head, row0, column0;
  Sequence sequence;
  Mask mask;

  // first: in_grids().
  __device__ Place(const Problem& p, int rows, int64_t columns, int columns_together,
                   int64_t first) {
    const int64_t across = blocks_of(columns, columns_together);
    const int64_t down = blocks_of(p.shape.queries, rows);
    int64_t block = first + blockIdx.x;
    column0 = block % across * columns_together, block /= across;
    row0 = block % down * rows, block /= down;
    head = block % p.shape.heads, batch = block / p.shape.heads;
    kv_head = head / (p.shape.heads / p.shape.kv_heads);
    sequence = fanano::sequence(batch, p.shape.queries, p.shape.keys, p.lengths.queries,
                                p.lengths.keys, p.lengths.q_offset);
    mask = make_mask(sequence, p.window.left, p.window.right);
  }

  // How many blocks such places need. A matrix without columns has a block for its rows, too: there
  // may be an lse.
  static int64_t count(const Shape& s, int rows, int64_t columns, int columns_together) {
    return s.batch * s.heads * blocks_of(s.queries, rows) * blocks_of(columns, columns_together);
  }

 private:
  static __host__ __device__ int64_t blocks_of(int64_t n, int together) {
    return n > together ? (n + together - 1) / together : 1;
  }
};

}  // namespace fanano::cuda
