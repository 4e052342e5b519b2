// What a test may ask of the emulator beyond the CUDA runtime that runtime.cpp stands in for.
#pragma once

#include <cstdint>
#include <set>
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
  size_t memory = SIZE_MAX;     // of which there is no more for one allocation in a stream's order
  int device_of_streams = 0;    // of those that are not a default stream
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

// The devices where a context has been made or used since the last call of this.
std::set<int> take_devices_in_use();

}  // namespace emulator
