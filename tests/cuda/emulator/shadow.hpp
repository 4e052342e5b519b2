// What is known of each byte of a memory: whether anything was written to it, by whom, and who has
// read it since. From this follow reads of what nobody wrote, and races. The four bytes of a word
// are one until an access is to some of them alone.
//
// Two accesses race when neither is ordered before the other, whatever order they were made in
// here: each thread has a vector clock, and barriers pass clocks on. Only real ordering counts:
// shuffles and matrix products run together but do not order memory, and neither does luck.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "program.hpp"

namespace emulator {

enum class What : uint8_t { read, write };

struct Access {
  uint32_t epoch = 0;  // of a launch, or of a block: older ones are ordered before all newer
  uint32_t block = 0, thread = 0;
  uint32_t clock = 0;
  const Instruction* at = nullptr;
};

// The clock of a copy that has not been waited for: it is ordered before nothing.
inline constexpr uint32_t in_flight = 0xffffffff;

class Shadow {
  struct Cell {
    bool written = false;
    Access write;
    std::vector<Access> reads;
    std::unique_ptr<Cell[]> bytes;  // of a word that is no longer one
  };
  std::vector<Cell> words_;
  size_t most_reads_;  // kept for each byte

  // f(cell, its first byte) for all of [at, at + n).
  template <class F> void for_each(size_t at, size_t n, F f);

 public:
  // most_reads bounds memory: where more threads than that read a byte, later reads are forgotten.
  explicit Shadow(size_t bytes, size_t most_reads)
      : words_(bytes / 4 + 1), most_reads_(most_reads) {}

  // One access of a thread to n bytes. memory: its name in a message. Throws Fault for a race, or
  // for a read of what was never written.
  void read(size_t at, size_t n, const Lane&, const Access&, const char* memory);
  void write(size_t at, size_t n, const Lane&, const Access&, const char* memory);

  // A copy in flight has landed: from now on, these bytes were written at that clock.
  void land(size_t at, size_t n, uint32_t clock);

  void set(size_t at, size_t n);  // by the host
  bool is_set(size_t at, size_t n);
};

}  // namespace emulator
