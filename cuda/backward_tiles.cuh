// THE TILE TABLE of flash attention's backward by sm_80's instructions.
//
// As in flash_tiles.cuh, a warp with two fragments of 16 rows reads each tile half as often as one
// with one does. Of a thread's 255 registers the sums take 4 Fragments Dim / 8 for each gradient;
// scores and their gradients take 4 Fragments Step / 8 each. Shared memory: at most 99 KiB.
#pragma once

namespace fanano::cuda {

struct BackwardTile {
  int fragments;  // of 16 rows of what a warp owns
  int warps;
  int step;  // how many of the others pass at once

  constexpr int warp_rows() const { return 16 * fragments; }
  constexpr int rows() const { return warp_rows() * warps; }
  constexpr int threads() const { return 32 * warps; }
};

// A block owns queries, of which it holds q and dout; one tile of K and one of V pass.
constexpr BackwardTile queries_tile(int dim) { return {dim == 64 ? 2 : 1, 4, 32}; }

// A block owns keys, of which it holds k and v; two tiles of Q and of dout pass, one while the
// other is multiplied. One fragment to a warp: with two, both sums, scores and their gradients are
// 192 registers of 64 columns, and what ptxas keeps beside them spills. Of 256 columns, for which
// there is no row, both sums alone are more than a thread's registers.
inline constexpr BackwardTile keys_tile{1, 4, 32};

// Of a multiprocessor, at least: ptxas by itself would make room for a third one of 64 columns, and
// spill for it.
inline constexpr int keys_blocks = 2;

}  // namespace fanano::cuda
