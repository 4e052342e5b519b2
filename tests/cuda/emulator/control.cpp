// Branches, the end, and barriers of the block.
#include <map>
#include <utility>

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

// A thread comes to the barrier whose number an operand has; another one (-1: none) has how many
// threads it is for. Returns them all where this is the last, else none.
std::vector<Lane*> meet(Lane& lane, const Instruction& i, int number_operand, int count_operand) {
  uint32_t number = lane.get<uint32_t>(i.slot(number_operand));
  int threads = int(lane.block->lanes.size());
  int expected = count_operand < 0 ? threads : int(lane.get<uint32_t>(i.slot(count_operand)));
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
  if (int(b.waiting.size()) < expected) return {};
  check_uniform(b.waiting);
  for (const Lane* other : b.waiting)
    if (other->waits->kind != i.kind)
      throw Fault("bad barrier: " + i.name + " at " + i.where.text() + " meets " +
                  other->waits->name + " at " + other->waits->where.text());
  join(b.waiting);
  for (Lane* waiting : b.waiting) waiting->state = Lane::running;
  return std::exchange(b.waiting, {});
}

void barrier(Lane& lane, const Instruction& i) { meet(lane, i, 0, i.operands > 1 ? 1 : -1); }

// d, number{, threads}, c: all of the threads' c, or any, to every d.
enum Reduction : uint8_t { none, all, any };

void reduce(Lane& lane, const Instruction& i) {
  const std::vector<Lane*> lanes = meet(lane, i, 1, i.operands > 3 ? 2 : -1);
  size_t votes = 0;
  for (const Lane* l : lanes) votes += l->get<bool>(l->waits->slot(l->waits->operands - 1));
  for (Lane* l : lanes)
    l->set<bool>(l->waits->slot(0), i.kind == all ? votes == lanes.size() : votes > 0);
}

void decode_reduction(Instruction& i, Modifiers& m) {
  i.kind = 1 + m.take_one_of({"and", "or"});
  if (i.kind == none || m.last() != "pred" || i.operands < 3) unsupported(i);
  i.run = reduce;
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
    {"bar.red", decode_reduction},
    {"barrier.sync", simple<barrier>},
    {"barrier.sync.aligned", simple<barrier>},
};

}  // namespace emulator
