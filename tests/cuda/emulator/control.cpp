// Branches, the end, and barriers of the block.
#include <map>

#include "block.hpp"
#include "fault.hpp"
#include "instructions.hpp"

namespace emulator {
namespace {

void branch(Lane& lane, const Instruction& i) { lane.pc = i.target; }

void end(Lane& lane, const Instruction& i) {
  if (!lane.open.empty() || !lane.groups.empty())
    throw Fault("unfinished: " + lane.text() + " ends with copies in flight, at " + i.where.text());
  lane.state = Lane::done;
}

// All threads of a warp must come to a barrier by the same instruction; different warps may come by
// different ones.
void check_uniform(const std::vector<Lane*>& lanes) {
  std::map<const Warp*, const Lane*> first;
  for (const Lane* lane : lanes) {
    const Lane* other = first.emplace(lane->warp, lane).first->second;
    if (lane->waits != other->waits)
      throw Fault("divergent barrier: " + lane->text() + " is at " + lane->waits->where.text() +
                  ", " + other->text() + " of the same warp at " + other->waits->where.text());
  }
}

void barrier(Lane& lane, const Instruction& i) {
  uint32_t number = lane.get<uint32_t>(i.slot(0));
  int threads = int(lane.block->lanes.size());
  int expected = i.operands > 1 ? int(lane.get<uint32_t>(i.slot(1))) : threads;
  if (number > 15 || expected <= 0 || expected % 32 || expected > threads)
    throw Fault("bad barrier: number " + std::to_string(number) + " for " +
                std::to_string(expected) + " threads, at " + i.where.text());
  Barrier& b = lane.block->barriers[number];
  if (b.waiting.empty()) b.expected = expected;
  if (b.expected != expected)
    throw Fault("bad barrier: " + std::to_string(number) + " is for " + std::to_string(b.expected) +
                " threads at " + b.waiting[0]->waits->where.text() + ", for " +
                std::to_string(expected) + " at " + i.where.text());
  b.waiting.push_back(&lane);
  lane.park(i);
  if (int(b.waiting.size()) < expected) return;
  check_uniform(b.waiting);
  join(b.waiting);
  for (Lane* waiting : b.waiting) waiting->state = Lane::running;
  b.waiting.clear();
}

template <void (*Run)(Lane&, const Instruction&)> void simple(Instruction& i, Modifiers&) {
  i.run = Run;
}

}  // namespace

const std::vector<Row> control_rows = {
    {"bra", simple<branch>},
    {"bra.uni", simple<branch>},
    {"ret", simple<end>},
    {"exit", simple<end>},
    {"bar.sync", simple<barrier>},
    {"barrier.sync", simple<barrier>},
    {"barrier.sync.aligned", simple<barrier>},
};

}  // namespace emulator
