#include "block.hpp"

#include <algorithm>

#include "fault.hpp"

namespace emulator {
namespace {

constexpr int64_t most_steps = 50'000'000;  // of one thread: more is an endless loop

uint64_t value_of(const Kernel::SpecialSlot& special, const Lane& lane) {
  const Launch& launch = lane.block->launch;
  auto axis = [&](const Dim& d) { return special.axis == 0 ? d.x : special.axis == 1 ? d.y : d.z; };
  uint32_t id = uint32_t(lane.id), x = launch.threads.x, y = launch.threads.y;
  switch (special.what) {
    case Special::tid: return axis({id % x, id / x % y, id / x / y});
    case Special::ctaid: return axis(lane.block->position);
    case Special::ntid: return axis(launch.threads);
    case Special::nctaid: return axis(launch.grid);
    case Special::laneid: return id % 32;
    case Special::warpid: return id / 32;
  }
  return 0;
}

size_t dynamic_begin(const Kernel& kernel) { return (kernel.shared_bytes + 1023) / 1024 * 1024; }

size_t shared_bytes(const Launch& launch) {
  const Kernel& kernel = launch.kernel;
  return launch.dynamic_bytes ? dynamic_begin(kernel) + launch.dynamic_bytes
                              : size_t(kernel.shared_bytes);
}

int threads_of(const Launch& launch) {
  return int(launch.threads.x * launch.threads.y * launch.threads.z);
}

}  // namespace

std::string Lane::text() const {
  return "thread " + std::to_string(id) + " of block " + std::to_string(block->index);
}

void Lane::run() {
  const std::vector<Instruction>& code = block->launch.kernel.code;
  while (state == running) {
    if (pc == int(code.size())) throw Fault(text() + " runs past the end of the code");
    const Instruction& i = code[pc++];
    if (++steps > most_steps)
      throw Fault("endless loop: " + text() + " is still at " + i.where.text());
    if (i.guard >= 0 && bool(slots[i.guard] & 1) == i.unless) continue;
    i.run(*this, i);
  }
}

Block::Block(const Launch& l, int i, Dim p)
    : launch(l), index(i), position(p), lanes(threads_of(l)), warps(lanes.size() / 32),
      shared(shared_bytes(l)), random_(l.seed * 2 + 1) {
  for (size_t w = 0; w < warps.size(); ++w) warps[w].lane = &lanes[w * 32];
  for (size_t t = 0; t < lanes.size(); ++t) {
    Lane& lane = lanes[t];
    lane.block = this, lane.warp = &warps[t / 32], lane.id = int(t);
    lane.slots = l.kernel.slots;
    for (const Kernel::SpecialSlot& s : l.kernel.specials) lane.slots[s.slot] = value_of(s, lane);
    for (int slot : l.kernel.dynamic_slots)
      lane.slots[slot] = shared_base + dynamic_begin(l.kernel);
    lane.clock.assign(lanes.size(), 0);
    lane.clock[t] = 1;
  }
}

// Lanes of the last one's warp first, for they meet often; then the other warps, in order.
Lane* Block::next(const Lane* last) {
  auto running = [](Warp& w) -> Lane* {
    for (int l = 0; l < 32; ++l)
      if (w.lane[l].state == Lane::running) return w.lane + l;
    return nullptr;
  };
  if (last)
    if (Lane* lane = running(*last->warp)) return lane;
  random_ = random_ * 6364136223846793005u + 1442695040888963407u;
  size_t n = warps.size(), shift = launch.order == Order::random ? (random_ >> 33) % n : 0;
  for (size_t w = 0; w < n; ++w) {
    size_t at = launch.order == Order::backward ? n - 1 - w : (w + shift) % n;
    if (Lane* lane = running(warps[at])) return lane;
  }
  return nullptr;
}

void Block::run() {
  for (Lane* lane = next(nullptr); lane; lane = next(lane)) lane->run();
  std::string waiting;
  const Instruction* seen = nullptr;
  for (const Lane& lane : lanes) {
    if (lane.state == Lane::done || lane.waits == seen) continue;
    seen = lane.waits;
    waiting += (waiting.empty() ? "" : ", ") + lane.text() + " at " + seen->where.text() + " (" +
               seen->name + ")";
  }
  if (!waiting.empty())
    throw Fault("deadlock: not all threads come to where these wait: " + waiting);
}

void arrive(Lane& lane, const Instruction& i) {
  Warp& warp = *lane.warp;
  if (warp.arrived == 0) warp.at = &i;
  if (warp.at != &i)
    throw Fault("divergent warp: " + lane.text() + " is at " + i.where.text() + " (" + i.name +
                "), others of its warp at " + warp.at->where.text() + " (" + warp.at->name + ")");
  warp.arrived |= 1u << lane.id % 32;
  lane.park(i);
  if (warp.arrived != 0xffffffff) return;
  warp.arrived = 0;
  i.together(warp, i);
  for (int l = 0; l < 32; ++l) warp.lane[l].state = Lane::running;
}

void join(const std::vector<Lane*>& lanes) {
  std::vector<uint32_t> clock(lanes.at(0)->clock.size(), 0);
  for (const Lane* lane : lanes)
    for (size_t t = 0; t < clock.size(); ++t) clock[t] = std::max(clock[t], lane->clock[t]);
  for (Lane* lane : lanes) lane->clock = clock, ++lane->clock[lane->id];
}

void run(const Launch& launch) {
  const Kernel& kernel = launch.kernel;
  int threads = threads_of(launch);
  if (threads == 0 || threads % 32 || threads > kernel.most_threads || threads > 1024)
    throw Fault("bad launch: blocks of " + std::to_string(threads) + " threads; the kernel takes " +
                "multiples of 32 up to " + std::to_string(kernel.most_threads));
  if (shared_bytes(launch) > 227 * 1024)
    throw Fault("bad launch: " + std::to_string(shared_bytes(launch)) + " bytes of shared memory");
  ++device_memory().launch;
  int index = 0;
  for (uint32_t z = 0; z < launch.grid.z; ++z)
    for (uint32_t y = 0; y < launch.grid.y; ++y)
      for (uint32_t x = 0; x < launch.grid.x; ++x) Block(launch, index++, {x, y, z}).run();
}

}  // namespace emulator
