// THE INSTRUCTION TABLE, and what its rows are made of.
//
// A row is the name of an instruction and a decoder, which reads what follows the name and puts the
// function for exactly that form into the instruction. What a decoder does not take is refused:
// ".sat" must not be passed over in silence. A new instruction is a decoder and a row; one that is
// asynchronous also needs a clock of its own in shadow.hpp.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "program.hpp"

namespace emulator {

bool is_branch(const std::string& name);

// Finds the row whose name is the longest beginning of the instruction's. Throws
// std::runtime_error.
void decode(Instruction&);

// What follows the name: ".sync.aligned.m8n8.x4.trans.shared.b16", a part at a time.
class Modifiers {
  std::vector<std::string> parts_;

 public:
  explicit Modifiers(std::vector<std::string> parts) : parts_(std::move(parts)) {}

  bool take(const std::string& part) {  // whether it was there; it is gone afterwards
    for (auto p = parts_.begin(); p != parts_.end(); ++p)
      if (*p == part) return parts_.erase(p), true;
    return false;
  }

  // The first of these that was there, as its number; -1: none.
  int take_one_of(const std::vector<std::string>& list) {
    for (size_t k = 0; k < list.size(); ++k)
      if (take(list[k])) return int(k);
    return -1;
  }

  std::string last() {  // the type, mostly
    if (parts_.empty()) throw std::runtime_error("an instruction without a type");
    std::string part = parts_.back();
    return parts_.pop_back(), part;
  }

  bool empty() const { return parts_.empty(); }
};

using Decoder = void (*)(Instruction&, Modifiers&);

[[noreturn]] inline void unsupported(const Instruction& i) {
  throw std::runtime_error("unsupported instruction " + i.name);
}

// f.operator()<T>() for the C++ type of a PTX type; untyped bits are unsigned.
template <class F> void with_type(const Instruction& i, const std::string& type, F f) {
  if (type == "pred") return f.template operator()<bool>();
  if (type == "b8" || type == "u8") return f.template operator()<uint8_t>();
  if (type == "s8") return f.template operator()<int8_t>();
  if (type == "b16" || type == "u16") return f.template operator()<uint16_t>();
  if (type == "s16") return f.template operator()<int16_t>();
  if (type == "b32" || type == "u32") return f.template operator()<uint32_t>();
  if (type == "s32") return f.template operator()<int32_t>();
  if (type == "b64" || type == "u64") return f.template operator()<uint64_t>();
  if (type == "s64") return f.template operator()<int64_t>();
  if (type == "f32") return f.template operator()<float>();
  if (type == "f64") return f.template operator()<double>();
  unsupported(i);
}

struct Row {
  const char* name;
  Decoder decoder;
};

// The rows, by file.
extern const std::vector<Row> arithmetic_rows, logic_rows, convert_rows, memory_rows, control_rows,
    warp_rows, matrix_rows;

}  // namespace emulator
