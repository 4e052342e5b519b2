#include "shadow.hpp"

#include "block.hpp"
#include "fault.hpp"

namespace emulator {
namespace {

bool ordered(const Access& before, const Lane& lane, const Access& now) {
  if (before.at == nullptr || before.epoch != now.epoch) return true;
  if (before.clock == in_flight || before.block != now.block) return false;
  return before.thread == now.thread || lane.clock[before.thread] >= before.clock;
}

std::string who(const Access& a) {
  return "thread " + std::to_string(a.thread) + " of block " + std::to_string(a.block) + " at " +
         a.at->where.text() + " (" + a.at->name + ")";
}

[[noreturn]] void race(const char* what, const Access& now, const Access& before, size_t at,
                       const char* memory) {
  std::string text = std::string("race: ") + what + " of byte " + std::to_string(at) + " of " +
                     memory + " by " + who(now) + " is not ordered after the ";
  if (before.clock == in_flight) text += "copy still in flight of ";
  throw Fault(text + "access by " + who(before));
}

}  // namespace

void Shadow::read(size_t at, size_t n, const Lane& lane, const Access& now, const char* memory) {
  for (size_t b = at; b < at + n; ++b) {
    Byte& byte = bytes_[b];
    if (!byte.written)
      throw Fault(std::string("uninitialised: ") + who(now) + " reads byte " + std::to_string(b) +
                  " of " + memory + ", which nothing has written");
    if (!ordered(byte.write, lane, now)) race("read", now, byte.write, b, memory);
    bool kept = false;
    for (Access& read : byte.reads) {
      if (!ordered(read, lane, now)) continue;
      read = now, kept = true;
      break;
    }
    if (!kept && byte.reads.size() < most_reads_) byte.reads.push_back(now);
  }
}

void Shadow::write(size_t at, size_t n, const Lane& lane, const Access& now, const char* memory) {
  for (size_t b = at; b < at + n; ++b) {
    Byte& byte = bytes_[b];
    if (!ordered(byte.write, lane, now)) race("write", now, byte.write, b, memory);
    for (const Access& read : byte.reads)
      if (!ordered(read, lane, now)) race("write", now, read, b, memory);
    byte.written = true, byte.write = now;
    byte.reads.clear();
  }
}

void Shadow::land(size_t at, size_t n, uint32_t clock) {
  for (size_t b = at; b < at + n; ++b) bytes_[b].write.clock = clock;
}

void Shadow::set(size_t at, size_t n) {
  for (size_t b = at; b < at + n; ++b) bytes_[b] = {true, {}, {}};
}

bool Shadow::is_set(size_t at, size_t n) const {
  for (size_t b = at; b < at + n; ++b)
    if (!bytes_[b].written) return false;
  return true;
}

}  // namespace emulator
