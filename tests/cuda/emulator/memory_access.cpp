// Loads and stores, and copies in the background.
#include <cstring>

#include "block.hpp"
#include "fault.hpp"
#include "instructions.hpp"

namespace emulator {
namespace {

// What is narrower than a register fills it with zeros, or with its sign.
void load(Lane& lane, const Instruction& i) {
  char data[32];
  uint64_t address = lane.slots[i.slot(1)] + uint64_t(i.offset[1]);
  size_t bytes = size_t(i.bytes < 0 ? -i.bytes : i.bytes);
  read(lane, i, Space(i.kind), address, data, bytes * i.count);
  for (int k = 0; k < i.count; ++k) {
    uint64_t value = 0;
    std::memcpy(&value, data + k * bytes, bytes);
    int unused = 64 - 8 * int(bytes);
    if (i.bytes < 0) value = uint64_t(int64_t(value << unused) >> unused);
    lane.slots[i.slot(0, k)] = value;
  }
}

void store(Lane& lane, const Instruction& i) {
  char data[32];
  uint64_t address = lane.slots[i.slot(0)] + uint64_t(i.offset[0]);
  for (int k = 0; k < i.count; ++k)
    std::memcpy(data + k * i.bytes, &lane.slots[i.slot(1, k)], i.bytes);
  write(lane, i, Space(i.kind), address, data, size_t(i.bytes * i.count));
}

// {.volatile}.space{.nc}{.v2}.type
void decode_access(Instruction& i, Modifiers& m) {
  bool loads = i.name.starts_with("ld");
  std::string type = m.last();
  with_type(i, type, [&]<class T>() { i.bytes = int(sizeof(T)); });
  m.take("volatile"), m.take("nc");
  i.kind = m.take("param")    ? int(Space::parameter)
           : m.take("shared") ? int(Space::shared)
           : m.take("global") ? int(Space::global)
                              : int(Space::generic);
  i.count = m.take("v2") ? 2 : m.take("v4") ? 4 : 1;
  if (i.elements(loads ? 0 : 1) != i.count || i.count * i.bytes > 16) unsupported(i);
  if (loads && type[0] == 's') i.bytes = -i.bytes;
  i.run = loads ? load : store;
}

// cp.async{.ca|.cg}.shared.global [to], [from], bytes{, bytes to read}: what is not read is zero.
// The data leaves when the copy begins, and arrives when it is waited for: until then, nobody may
// touch the place.
void copy(Lane& lane, const Instruction& i) {
  uint64_t to = lane.slots[i.slot(0)] + uint64_t(i.offset[0]);
  uint64_t from = lane.slots[i.slot(1)] + uint64_t(i.offset[1]);
  size_t n = lane.get<uint32_t>(i.slot(2));
  size_t reads = i.operands > 3 ? lane.get<uint32_t>(i.slot(3)) : n;
  if (n != 16 && (n != 4 || i.kind) && (n != 8 || i.kind))
    throw Fault("bad copy: " + i.name + " of " + std::to_string(n) + " bytes at " + i.where.text());
  if (reads > n)
    throw Fault("bad copy: " + std::to_string(reads) + " of " + std::to_string(n) +
                " bytes are to be read at " + i.where.text());
  Copy copy{to, std::vector<char>(n)};
  if (reads) {
    lane.block->statistics.note(lane, i, false, from, n);
    device_memory().read(lane, i, from, copy.bytes.data(), reads, n);
  }
  lane.block->statistics.note(lane, i, true, to, n);
  lane.block->shared.begin(lane, i, to, n);
  lane.open.push_back(std::move(copy));
}

void decode_copy(Instruction& i, Modifiers& m) {
  i.kind = m.take("cg");
  m.take("ca"), m.take("shared"), m.take("shared::cta"), m.take("global");
  m.take_one_of({"L2::64B", "L2::128B", "L2::256B"});
  if (i.operands < 3 || i.operands > 4) unsupported(i);
  i.run = copy;
}

void commit(Lane& lane, const Instruction&) {
  lane.groups.push_back(std::move(lane.open));
  lane.open.clear();
}

void land(Lane& lane, const std::vector<Copy>& group) {
  for (const Copy& c : group) lane.block->shared.land(lane, c.to, c.bytes.data(), c.bytes.size());
}

void wait_group(Lane& lane, const Instruction& i) {
  size_t still_flying = lane.get<uint32_t>(i.slot(0));
  while (lane.groups.size() > still_flying) {
    land(lane, lane.groups.front());
    lane.groups.erase(lane.groups.begin());
  }
}

void wait_all(Lane& lane, const Instruction&) {
  for (const auto& group : lane.groups) land(lane, group);
  land(lane, lane.open);
  lane.groups.clear(), lane.open.clear();
}

template <void (*Run)(Lane&, const Instruction&)> void simple(Instruction& i, Modifiers&) {
  i.run = Run;
}

}  // namespace

const std::vector<Row> memory_rows = {
    {"ld", decode_access},
    {"st", decode_access},
    {"cp.async", decode_copy},
    {"cp.async.commit_group", simple<commit>},
    {"cp.async.wait_group", simple<wait_group>},
    {"cp.async.wait_all", simple<wait_all>},
};

}  // namespace emulator
