// A machine that the emulator's runtime plays, for tests of the host's side.
#pragma once

#include <string>

#include "emulator/runtime.hpp"

// For one test; the next one finds the usual one.
class Machine {
 public:
  explicit Machine(emulator::Machine m = {}) { emulator::machine() = m, emulator::take_calls(); }
  ~Machine() {
    cudaSetDevice(0);
    emulator::machine() = {}, emulator::take_failure(), cudaGetLastError();
  }
};

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
