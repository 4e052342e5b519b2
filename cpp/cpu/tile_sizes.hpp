// Every tile size of the CPU kernels, with its reason.
#pragma once

#include "simd/simd.hpp"

namespace fanano::FANANO_ISA {

struct TileSizes {
  int vectors;  // query rows of a strip, in vectors
  int group;    // keys (or value columns) that the micro-kernel takes at once
};

// vectors x group accumulators live in registers, `vectors` operands and one broadcast beside them.
inline constexpr TileSizes tile_sizes =
    vector_bytes == 64      ? TileSizes{4, 4}   // 16 of 32: latency 4 x 2 per cycle needs 8
    : vector_bytes == 32    ? TileSizes{2, 6}   // 12 of 16; 4 x 3 and 6 x 2 spill
    : vector_registers > 16 ? TileSizes{4, 4}   // 16 of 32: latency 4 x 4 per cycle; 4 x 6 spills
                            : TileSizes{2, 4};  // 8 of 16: no FMA, the product needs a register too

// Keys of a tile: S^T of one strip (128 keys x 2 or 4 vectors: 8 or 32 KiB) stays in the L1 cache
// while K and V of the tile stream through it. Part of the bits: sums are grouped by tile.
inline constexpr int tile_keys = 128;

// Columns of q and k whose products are summed in one chain. Common head sizes take one.
inline constexpr int score_columns = 32;

// Keys of a tile of decode: K and V of 64 keys, 16-bit or not, stay in the second-level cache while
// what comes next is asked for. Part of the bits.
inline constexpr int decode_keys = 64;

// Accumulators of decode's products with v, for rows x vectors of columns.
inline constexpr int decode_columns = vector_registers == 32 ? 16 : 8;

template <class A> inline constexpr int strip_rows = tile_sizes.vectors * Vec<A>::width;

FANANO_FN int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace fanano::FANANO_ISA
