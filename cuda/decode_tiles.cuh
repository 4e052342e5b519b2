// THE TILE TABLE of decode by sm_80's instructions.
//
// Warps work side by side on different keys, each with a ring of its own in shared memory, through
// which tiles of K and V come by turns. What counts is how much of them is under way: all of a ring
// but the slot in use, of all the warps that a multiprocessor holds. Rings are 64 KiB or less, so
// that at least two blocks fit on sm_80's multiprocessor, three on sm_90's, and one on that of the
// small sisters of sm_80, which gives a block 99 KiB.
#pragma once

namespace fanano::cuda {

struct DecodeTile {
  static constexpr int rows = 16;  // the query rows of one fragment
  static constexpr int keys = 32;  // of a warp

  int warps;
  int slots;  // of a ring: a power of 2

  constexpr int threads() const { return 32 * warps; }
};

// Warps are part of the bits, too: they share the keys of a split.
constexpr DecodeTile decode_tile(int dim) {
  switch (dim) {
    case 32:
    case 64: return {4, 4};
    case 96:
    case 128: return {4, 2};
    default: return {2, 2};
  }
}

}  // namespace fanano::cuda
