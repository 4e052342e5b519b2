// Matrices in the registers of a warp: ldmatrix, and products by mma.sync.
#include "block.hpp"
#include "formats.hpp"
#include "instructions.hpp"

namespace emulator {
namespace {

// Matrices of 8 x 8 numbers of 16 bits: lane 8 k + r has the address of row r of matrix k, and
// lane 4 r + c gets columns 2 c and 2 c + 1 of row r; of the columns' rows, where transposed.
template <bool Transposed> void load_matrices(Warp& warp, const Instruction& i) {
  for (int k = 0; k < i.count; ++k) {
    uint16_t matrix[8][8];
    for (int r = 0; r < 8; ++r) {
      Lane& lane = warp.lane[8 * k + r];
      uint64_t address = lane.get<uint32_t>(i.slot(1)) + uint64_t(i.offset[1]);
      read(lane, i, Space::shared, address, matrix[r], 16);
    }
    for (int l = 0; l < 32; ++l) {
      int r = l / 4, c = l % 4 * 2;
      uint32_t low = Transposed ? matrix[c][r] : matrix[r][c];
      uint32_t high = Transposed ? matrix[c + 1][r] : matrix[r][c + 1];
      warp.lane[l].set<uint32_t>(i.slot(0, k), high << 16 | low);
    }
  }
}

void decode_load(Instruction& i, Modifiers& m) {
  i.count = m.take("x4") ? 4 : m.take("x2") ? 2 : m.take("x1") ? 1 : 0;
  bool transposed = m.take("trans");
  m.take("shared"), m.take("shared::cta");
  if (m.last() != "b16" || i.elements(0) != i.count || i.count == 0) unsupported(i);
  i.run = arrive, i.together = transposed ? load_matrices<true> : load_matrices<false>;
}

// D (16 x 8) = A (16 x 16) B (16 x 8) + C. Lane l holds, with r = l / 4 and c = l % 4 * 2,
//   a0 A[r][c, c+1]  a1 A[r+8][c, c+1]  a2 A[r][c+8, c+9]  a3 A[r+8][c+8, c+9]
//   b0 B[c, c+1][r]  b1 B[c+8, c+9][r]
//   d0 d1 D[r][c, c+1]  d2 d3 D[r+8][c, c+1], and c likewise.
// Products are exact and the sum is rounded once; the hardware's sums are of another order and
// width, for which tests must leave room.
template <class Format> void product(Warp& warp, const Instruction& i) {
  float a[16][16], b[16][8];
  for (int l = 0; l < 32; ++l) {
    const Lane& lane = warp.lane[l];
    int r = l / 4, c = l % 4 * 2;
    for (int k = 0; k < 4; ++k) {
      uint32_t pair = lane.get<uint32_t>(i.slot(1, k));
      for (int e = 0; e < 2; ++e)
        a[r + k % 2 * 8][c + k / 2 * 8 + e] = Format::widen(uint16_t(pair >> 16 * e));
    }
    for (int k = 0; k < 2; ++k) {
      uint32_t pair = lane.get<uint32_t>(i.slot(2, k));
      for (int e = 0; e < 2; ++e) b[c + k * 8 + e][r] = Format::widen(uint16_t(pair >> 16 * e));
    }
  }
  for (int l = 0; l < 32; ++l) {
    Lane& lane = warp.lane[l];
    for (int k = 0; k < 4; ++k) {
      int row = l / 4 + k / 2 * 8, column = l % 4 * 2 + k % 2;
      double sum = lane.get<float>(i.slot(3, k));
      for (int t = 0; t < 16; ++t) sum += double(a[row][t]) * double(b[t][column]);
      lane.set<float>(i.slot(0, k), float(sum));
    }
  }
}

template <class Format> void decode_product(Instruction& i, Modifiers&) {
  if (i.operands != 4 || i.elements(0) != 4 || i.elements(1) != 4 || i.elements(2) != 2 ||
      i.elements(3) != 4)
    unsupported(i);
  i.run = arrive, i.together = product<Format>;
}

}  // namespace

const std::vector<Row> matrix_rows = {
    {"ldmatrix.sync.aligned.m8n8", decode_load},
    {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", decode_product<Half>},
    {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", decode_product<BFloat>},
};

}  // namespace emulator
