// How well accesses fit the hardware, for each instruction: what a request of a warp costs beside
// what it would cost at best.
//
//   shared memory: wavefronts. A wavefront serves 128 bytes, at most one word of each of 32 banks;
//                  lanes that read the same word share it. Accesses of 8 and 16 bytes take 2 and 4.
//   device memory: sectors of 32 bytes.
//
// The n-th time that a lane comes to an instruction belongs to the n-th request of its warp there.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "program.hpp"

namespace emulator {

struct Traffic {
  std::string where, instruction;
  bool shared = false;
  int bytes = 0;  // of one lane
  uint64_t requests = 0, cost = 0, ideal = 0;

  double ratio() const { return ideal ? double(cost) / double(ideal) : 1; }
  std::string text() const;
};

// Of every launch since the last clear_traffic(), by kernel, place and instruction. Counted only
// while on.
void count_traffic(bool on);
std::vector<Traffic> traffic();
void clear_traffic();

// Of one block; goes into the sums when the block ends.
class Statistics {
  struct Request {
    uint32_t lanes = 0;
    uint64_t address[32];
  };
  struct Site {
    const Instruction* at;
    bool shared;
    size_t bytes;
    std::vector<Request> requests;
    std::vector<uint32_t> times;  // of each lane
  };
  std::map<std::pair<const Instruction*, std::pair<const Warp*, bool>>, Site> sites_;

 public:
  void note(const Lane&, const Instruction&, bool shared, uint64_t address, size_t bytes);
  ~Statistics();
};

}  // namespace emulator
