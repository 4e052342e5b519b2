// What the lanes of a warp do together: shuffles, votes, and their own barrier.
#include "block.hpp"
#include "fault.hpp"
#include "instructions.hpp"

namespace emulator {
namespace {

void whole_warp(const Warp& warp, const Instruction& i, int mask_operand) {
  for (int l = 0; l < 32; ++l)
    if (warp.lane[l].get<uint32_t>(i.slot(mask_operand)) != 0xffffffff)
      throw Fault("unsupported: " + i.name + " with a mask of some lanes, at " + i.where.text());
}

enum Mode : uint8_t { up, down, bfly, idx };

// d|p, a, b, c: c holds the mask that cuts a warp into segments, and the last lane of each.
void shuffle(Warp& warp, const Instruction& i) {
  whole_warp(warp, i, i.operands - 1);
  uint32_t value[32];
  for (int l = 0; l < 32; ++l) value[l] = warp.lane[l].get<uint32_t>(i.slot(1));
  for (int l = 0; l < 32; ++l) {
    Lane& lane = warp.lane[l];
    uint32_t b = lane.get<uint32_t>(i.slot(2)) & 31, c = lane.get<uint32_t>(i.slot(3));
    int clamp = int(c & 31), segment = int(c >> 8 & 31);
    int most = (l & segment) | (clamp & ~segment), least = l & segment, from = l;
    bool inside = true;
    switch (i.kind) {
      case up: from = l - int(b), inside = from >= most; break;
      case down: from = l + int(b), inside = from <= most; break;
      case bfly: from = l ^ int(b), inside = from <= most; break;
      case idx: from = least | (int(b) & ~segment), inside = from <= most; break;
    }
    lane.set<uint32_t>(i.slot(0), value[inside ? from : l]);
    if (i.elements(0) > 1) lane.set<bool>(i.slot(0, 1), inside);
  }
}

void decode_shuffle(Instruction& i, Modifiers& m) {
  i.kind = m.take_one_of({"up", "down", "bfly", "idx"});
  if (i.kind < 0 || m.last() != "b32" || i.operands != 5) unsupported(i);
  i.run = arrive, i.together = shuffle;
}

enum Vote : uint8_t { all, any, ballot };

void vote(Warp& warp, const Instruction& i) {
  whole_warp(warp, i, 2);
  uint32_t votes = 0;
  for (int l = 0; l < 32; ++l) votes |= uint32_t(warp.lane[l].get<bool>(i.slot(1))) << l;
  for (int l = 0; l < 32; ++l) {
    if (i.kind == ballot)
      warp.lane[l].set<uint32_t>(i.slot(0), votes);
    else
      warp.lane[l].set<bool>(i.slot(0), i.kind == all ? votes == 0xffffffff : votes != 0);
  }
}

void decode_vote(Instruction& i, Modifiers& m) {
  i.kind = m.take_one_of({"all", "any", "ballot"});
  m.last();
  i.run = i.kind < 0 ? nullptr : arrive, i.together = vote;
}

// The only one of these that orders memory.
void barrier(Warp& warp, const Instruction& i) {
  whole_warp(warp, i, 0);
  std::vector<Lane*> lanes;
  for (int l = 0; l < 32; ++l) lanes.push_back(warp.lane + l);
  join(lanes);
}

void decode_barrier(Instruction& i, Modifiers&) { i.run = arrive, i.together = barrier; }

}  // namespace

const std::vector<Row> warp_rows = {
    {"shfl.sync", decode_shuffle},
    {"vote.sync", decode_vote},
    {"bar.warp.sync", decode_barrier},
};

}  // namespace emulator
