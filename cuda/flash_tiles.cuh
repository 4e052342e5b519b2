// THE TILE TABLE of flash attention by sm_80's instructions.
//
// Every tile of K and V is read from shared memory by each warp: with 32 query rows to a warp, in
// two fragments of 16, that takes no longer than the products, with 16 it would. o and s are the
// registers: of a thread's 255, o takes 16 Fragments Dim / 32, and s 16 Fragments Keys / 32.
// Shared memory holds Q, one tile of K and one of V, and addends of the caller's mask: at most 99
// KiB, which the small sisters of sm_80 have, too.
#pragma once

namespace fanano::cuda {

struct FlashTile {
  int fragments;  // of 16 query rows, of a warp
  int warps, keys;

  constexpr int warp_rows() const { return 16 * fragments; }
  constexpr int rows() const { return warp_rows() * warps; }
  constexpr int threads() const { return 32 * warps; }
};

// Keys are at most 64: what a row sees of a tile is a word of 64 bits.
constexpr FlashTile flash_tile(int dim, bool general) {
  switch (dim) {
    case 32:
    case 64: return {2, 4, 64};
    case 96: return {2, 4, general ? 32 : 64};
    case 128: return {2, 4, 32};
    // Of 32 rows o alone would be 256 registers.
    default: return {1, 4, 32};
  }
}

}  // namespace fanano::cuda
