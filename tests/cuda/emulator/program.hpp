// A kernel as the parser leaves it: instructions whose operands are numbers of slots.
//
// A slot is one 64-bit value of a thread: a register, and just as well an immediate, a special
// register or the address of a symbol, which are filled in before the thread starts. So no
// instruction ever has to ask what kind of operand it has.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulator {

struct Lane;
struct Warp;
struct Instruction;

// Where an instruction came from, by the .loc directives of -lineinfo; without them, the line of
// the PTX itself. An inlined function's line comes with the line of the kernel that called it.
struct Where {
  std::string file;
  int line = 0;
  std::string caller;  // empty: not inlined
  int caller_line = 0;

  std::string text() const;
};

struct Instruction {
  // What one thread does; or, for instructions that a warp makes together, what is done for all its
  // lanes when the last has come.
  void (*run)(Lane&, const Instruction&) = nullptr;
  void (*together)(Warp&, const Instruction&) = nullptr;

  int guard = -1;       // slot of a predicate, -1: none
  bool unless = false;  // @!p

  // Operand k has the slots [begin[k], begin[k + 1]) of the list: {a, b, c} and d|p have several,
  // and [address + offset] has that of the address.
  std::vector<int> slots;
  std::array<uint16_t, 9> begin{};
  std::array<int64_t, 8> offset{};
  int operands = 0;

  int target = -1;                     // of a branch
  int bytes = 0, count = 1, kind = 0;  // what a decoder notes for its instruction

  std::string name;  // with all modifiers
  int ptx_line = 0, index = 0;
  Where where;

  int slot(int operand, int element = 0) const { return slots[begin[operand] + element]; }
  int elements(int operand) const { return begin[operand + 1] - begin[operand]; }
};

enum class Special : uint8_t { tid, ctaid, ntid, nctaid, laneid, warpid };

struct Kernel {
  struct Parameter { int offset, bytes; };
  struct SpecialSlot {
    int slot;
    Special what;
    int axis;
  };

  std::string name;
  std::vector<Instruction> code;
  std::vector<Parameter> parameters;
  int parameter_bytes = 0;
  int shared_bytes = 0;               // declared in the kernel; dynamic memory comes after it
  int most_threads = 1024;            // .maxntid
  std::vector<uint64_t> slots;        // as every thread finds them
  std::vector<SpecialSlot> specials;  // to be filled in for each thread
  std::vector<int> dynamic_slots;     // addresses of extern shared arrays
};

struct Program { std::map<std::string, Kernel> kernels; };

// Addresses of shared memory begin here, so that 0 is none of them.
inline constexpr uint64_t shared_base = 0x400;
// A generic address with these bits is one of shared memory; no process has memory there.
inline constexpr uint64_t shared_window = 0xfa00000000000000;
// What an unwritten register holds: a NaN in every format, and no address.
inline constexpr uint64_t poison = 0xfffa5a5a7fc07fde;

}  // namespace emulator
