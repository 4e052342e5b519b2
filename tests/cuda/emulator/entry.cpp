// What Python tests may ask of the emulator where the module is linked with it (stage_cuda): they
// find these functions by name.
#include <cstring>
#include <string>

#include "memory.hpp"
#include "runtime.hpp"

extern "C" {

[[gnu::visibility("default")]] void* emulator_allocate(size_t bytes) {
  return emulator::device_memory().allocate(bytes);
}
[[gnu::visibility("default")]] bool emulator_free(void* address) {
  return emulator::device_memory().free(address);
}

// False: outside of what was allocated, or (out) never written.
[[gnu::visibility("default")]] bool emulator_copy_in(void* to, const void* from, size_t bytes) {
  return emulator::device_memory().copy_in(to, from, bytes);
}
[[gnu::visibility("default")]] bool emulator_copy_out(void* to, const void* from, size_t bytes) {
  return emulator::device_memory().copy_out(to, from, bytes);
}

// What the runtime was asked to do since the last call, a line each: its name, device, stream. As
// much of it as there is room for.
[[gnu::visibility("default")]] void emulator_take_calls(char* to, size_t room) {
  std::string lines;
  for (const emulator::Call& call : emulator::take_calls())
    lines += call.what + " " + std::to_string(call.device) + " " +
             std::to_string(reinterpret_cast<uintptr_t>(call.stream)) + "\n";
  std::strncpy(to, lines.c_str(), room - 1);
}

// Of how many devices the machine is, with which error every launch fails, 0: with none, and how
// many bytes it has for one allocation.
[[gnu::visibility("default")]] void emulator_play(int devices, int launch_error, size_t memory) {
  emulator::Machine& machine = emulator::machine();
  machine.devices = devices, machine.launch_error = launch_error, machine.memory = memory;
}

}  // extern "C"
