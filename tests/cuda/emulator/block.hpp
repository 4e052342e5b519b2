// The execution model: lanes, warps and one block of them.
//
// A lane is a fiber: a place in the code and a set of registers. It runs until it has to wait for
// others (parks), and then another one runs; nothing of the host's own stack is in it, so that no
// stacks have to be switched. A warp's common instructions are a rendezvous: the lane that comes
// last does the work for all. Blocks run one after the other.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "memory.hpp"
#include "program.hpp"
#include "statistics.hpp"

namespace emulator {

struct Block;

struct Dim { uint32_t x = 1, y = 1, z = 1; };

// In which order the warps of a block run; a right kernel gives the same results in all of them.
enum class Order : uint8_t { forward, backward, random };

struct Launch {
  const Kernel& kernel;
  Dim grid, threads;
  size_t dynamic_bytes = 0;  // of shared memory
  std::vector<char> parameters;
  Order order = Order::forward;
  uint64_t seed = 1;
};

// A copy to shared memory that has begun; its bytes arrive when it is waited for.
struct Copy {
  uint64_t to;
  std::vector<char> bytes;
};

struct Lane {
  enum State : uint8_t { running, parked, done };

  Block* block = nullptr;
  Warp* warp = nullptr;
  int id = 0;  // in the block; id % 32 in the warp
  State state = running;
  int pc = 0;
  int64_t steps = 0;
  bool carry = false;  // of add.cc and its relatives
  std::vector<uint64_t> slots;
  std::vector<uint32_t> clock;  // what of each thread is ordered before now
  std::vector<Copy> open;       // copies not yet in a group
  std::vector<std::vector<Copy>> groups;
  const Instruction* waits = nullptr;

  std::string text() const;  // "thread 7 of block 0"
  void run();
  void park(const Instruction& i) { state = parked, waits = &i; }

  template <class T> T get(int slot) const {
    if constexpr (std::is_same_v<T, bool>) return slots[slot] & 1;  // -1 is a true immediate
    T value;
    __builtin_memcpy(&value, &slots[slot], sizeof(T));
    return value;
  }
  template <class T> void set(int slot, T value) {
    slots[slot] = 0;
    __builtin_memcpy(&slots[slot], &value, sizeof(T));
  }
};

struct Warp {
  Lane* lane = nullptr;  // the first of 32
  uint32_t arrived = 0;
  const Instruction* at = nullptr;
};

struct Barrier {
  int arrived = 0, expected = 0;
  std::vector<Lane*> waiting;
};

struct Block {
  const Launch& launch;
  int index;
  Dim position;
  std::vector<Lane> lanes;
  std::vector<Warp> warps;
  SharedMemory shared;
  Barrier barriers[16];
  Statistics statistics;

  Block(const Launch&, int index, Dim position);
  void run();

 private:
  Lane* next(const Lane* last);
  uint64_t random_;
};

// One lane has come to an instruction that its warp makes together.
void arrive(Lane&, const Instruction&);
// The clocks of these lanes become one, and each lane's own moves on.
void join(const std::vector<Lane*>&);

// Runs all blocks. Throws Fault for the first thing that is wrong.
void run(const Launch&);

}  // namespace emulator
