// What a block of sm_80's kernels knows of the head that it works on, and what its warps see of a
// tile.
#pragma once

#include "kept.cuh"
#include "mask_scores.cuh"
#include "place.cuh"

namespace fanano::cuda {

// It stands in shared memory, made by one thread: held in registers, it would leave too few for
// fragments.
struct HeadBlock : Head {
  enum Sees { nothing, some, all };

  Elements elements;
  Kept kept;
  ScoreConstants<float> constants;

  __device__ HeadBlock(const Problem& p, int64_t batch_, int64_t head_)
      : Head(p, batch_, head_), elements(p, batch, head), kept(p.dropout, batch, head),
        constants(score_constants<float>(p, batch, head, log2e<double>)) {}

  // What the lane knows of its row of the rows [first, first + Rows) and the keys [j0, j0 + Keys),
  // and how much of them the warp sees. Addends are left in the warp's shared memory, which nobody
  // may be reading.
  template <bool General, int Rows, int Keys, int Gap>
  __device__ LaneRow look(int64_t first, int64_t j0, MaskTile<Rows, Keys, Gap> addends,
                          Sees& sees) const {
    LaneRow row;
    const int64_t own_row = first + threadIdx.x % 32 % Rows;
    const Range rows{first, clamp(first + Rows, 0, sequence.queries)};
    const Range columns = mask.columns(rows), tile_columns{j0, j0 + Keys};
    sees = nothing;
    if (rows.size() == 0 || columns.end <= j0 || columns.begin >= j0 + Keys) return row;
    sees = rows.size() == Rows && mask.whole(rows, tile_columns) ? all : some;
    if (sees != all) row.seen = own_row < sequence.queries ? bits_of(mask.columns(own_row), j0) : 0;
    if constexpr (General) {
      if (elements.data) {
        auto begin = [&](int r) { return (first + r) * elements.row; };
        row.seen &= addends.load(elements, int(rows.size()), begin, j0, sequence.keys);
        __syncwarp();  // the new ones are there
        sees = some;
      }
      if (kept.on) row.kept = kept.template of_row<Keys>(own_row, j0);
      if (constants.slope != 0) {
        const Slope<float> slope(constants.slope, mask, own_row, j0);
        row.high = slope.high, row.low = slope.low, row.minus = slope.minus;
      }
    }
    return row;
  }
};

}  // namespace fanano::cuda
