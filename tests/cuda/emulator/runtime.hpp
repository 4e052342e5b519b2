// What a test may ask of the emulator beyond the CUDA runtime that runtime.cpp stands in for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

// The words of the last launch or copy that failed; empty since the last call: none did.
std::string take_failure();

// The machine that the stand-in plays.
struct Machine {
  int devices = 1, capability = 80;  // 10 * major + minor
  int driver = 13000;                // the CUDA version that it is for; 0: there is none
  bool starts = true;  // false: as in a process whose parent had begun to use CUDA before the fork
  int most_blocks = INT32_MAX;  // of a grid
  int launch_error = 0;         // with which every launch fails; 0: they run
};
Machine& machine();

// What the runtime was asked to do, in order, since the last call of this: functions by their
// names, launches by those of their kernels, with the calling thread's device and the stream.
struct Call {
  std::string what;
  int device;
  void* stream;
};
std::vector<Call> take_calls();

}  // namespace emulator
