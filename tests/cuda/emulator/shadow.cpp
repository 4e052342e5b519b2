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

template <class F> void Shadow::for_each(size_t at, size_t n, F f) {
  for (size_t b = at; b < at + n;) {
    Cell& word = words_[b / 4];
    if (!word.bytes && b % 4 == 0 && at + n - b >= 4) {
      f(word, b), b += 4;
      continue;
    }
    if (!word.bytes) {
      word.bytes = std::make_unique<Cell[]>(4);
      for (int k = 0; k < 4; ++k)
        word.bytes[k].written = word.written, word.bytes[k].write = word.write,
        word.bytes[k].reads = word.reads;
    }
    f(word.bytes[b % 4], b), ++b;
  }
}

void Shadow::read(size_t at, size_t n, const Lane& lane, const Access& now, const char* memory) {
  for_each(at, n, [&](Cell& cell, size_t b) {
    if (!cell.written)
      throw Fault(std::string("uninitialised: ") + who(now) + " reads byte " + std::to_string(b) +
                  " of " + memory + ", which nothing has written");
    if (!ordered(cell.write, lane, now)) race("read", now, cell.write, b, memory);
    for (Access& read : cell.reads)
      if (ordered(read, lane, now)) {
        read = now;
        return;
      }
    if (cell.reads.size() < most_reads_) cell.reads.push_back(now);
  });
}

void Shadow::write(size_t at, size_t n, const Lane& lane, const Access& now, const char* memory) {
  for_each(at, n, [&](Cell& cell, size_t b) {
    if (!ordered(cell.write, lane, now)) race("write", now, cell.write, b, memory);
    for (const Access& read : cell.reads)
      if (!ordered(read, lane, now)) race("write", now, read, b, memory);
    cell.written = true, cell.write = now;
    cell.reads.clear();
  });
}

void Shadow::land(size_t at, size_t n, uint32_t clock) {
  for_each(at, n, [&](Cell& cell, size_t) { cell.write.clock = clock; });
}

void Shadow::set(size_t at, size_t n) {
  for_each(at, n, [](Cell& cell, size_t) {
    cell.written = true, cell.write = {};
    cell.reads.clear();
  });
}

bool Shadow::is_set(size_t at, size_t n) {
  bool all = true;
  for_each(at, n, [&](Cell& cell, size_t) { all &= cell.written; });
  return all;
}

}  // namespace emulator
