// The memories that a kernel reaches, and what is checked of every access: that it lies within what
// was allocated, is aligned, reads what was written, and is ordered against those of other threads.
#pragma once

#include <cstddef>
#include <map>
#include <memory>

#include "program.hpp"
#include "shadow.hpp"

namespace emulator {

// Device memory: host memory at its own address, so that pointers need no translation.
class DeviceMemory {
  struct Buffer {
    std::unique_ptr<char, void (*)(void*)> data;
    size_t bytes;
    Shadow shadow;
  };
  std::map<uintptr_t, Buffer> buffers_;

  Buffer* find(uintptr_t address, size_t n);

 public:
  uint32_t launch = 1;

  void* allocate(size_t bytes);
  bool free(void*);  // false: nothing was allocated there
  bool empty() const { return buffers_.empty(); }

  // By the host. False: outside of what was allocated, or (read) never written.
  bool copy_in(void* to, const void* from, size_t n);
  bool copy_out(void* to, const void* from, size_t n);

  // alignment 0: that of n bytes.
  void read(Lane&, const Instruction&, uint64_t address, void* to, size_t n, size_t alignment = 0);
  void write(Lane&, const Instruction&, uint64_t address, const void* from, size_t n);
};

DeviceMemory& device_memory();

// Shared memory of one block; addresses begin at shared_base.
class SharedMemory {
  std::vector<char> data_;
  Shadow shadow_;
  size_t offset(Lane&, const Instruction&, uint64_t address, size_t n) const;

 public:
  explicit SharedMemory(size_t bytes) : data_(bytes), shadow_(bytes, ~size_t(0)) {}

  void read(Lane&, const Instruction&, uint64_t address, void* to, size_t n);
  void write(Lane&, const Instruction&, uint64_t address, const void* from, size_t n);

  // A copy in the background: from begin to land its bytes belong to nobody, and hold poison.
  void begin(Lane&, const Instruction&, uint64_t address, size_t n);
  void land(const Lane&, uint64_t address, const void* from, size_t n);
};

enum class Space : uint8_t { generic, parameter, shared, global };

// Through the memory that the space and the address name.
void read(Lane&, const Instruction&, Space, uint64_t address, void* to, size_t n);
void write(Lane&, const Instruction&, Space, uint64_t address, const void* from, size_t n);

}  // namespace emulator
