#include "memory.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "block.hpp"
#include "fault.hpp"

namespace emulator {
namespace {

[[noreturn]] void bad_address(const Lane& lane, const Instruction& i, const char* kind,
                              uint64_t address, size_t n, const std::string& why) {
  char text[64];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(address));
  throw Fault(std::string(kind) + ": " + lane.text() + " accesses " + std::to_string(n) +
              " bytes at " + text + " " + why + ", at " + i.where.text() + " (" + i.name + ")");
}

void check_alignment(const Lane& lane, const Instruction& i, uint64_t address, size_t n) {
  if (address % n) bad_address(lane, i, "misaligned", address, n, "which is no multiple of them");
}

// Copies in flight read their source when they begin: all accesses of a thread have its clock.
Access access(const Lane& lane, const Instruction& i, uint32_t epoch) {
  return {epoch, uint32_t(lane.block->index), uint32_t(lane.id), lane.clock[lane.id], &i};
}

}  // namespace

DeviceMemory& device_memory() {
  static DeviceMemory memory;
  return memory;
}

void* DeviceMemory::allocate(size_t bytes) {
  size_t rounded = (bytes + 256) / 256 * 256;
  std::unique_ptr<char, void (*)(void*)> data(static_cast<char*>(std::aligned_alloc(256, rounded)),
                                              std::free);
  std::memset(data.get(), 0xff, rounded);
  void* address = data.get();
  // A few readers are kept of each byte: inputs are read by every block, and written by none.
  buffers_.emplace(reinterpret_cast<uintptr_t>(address),
                   Buffer{std::move(data), bytes, Shadow(bytes, 2)});
  return address;
}

bool DeviceMemory::free(void* address) {
  return buffers_.erase(reinterpret_cast<uintptr_t>(address)) == 1;
}

DeviceMemory::Buffer* DeviceMemory::find(uintptr_t address, size_t n) {
  auto after = buffers_.upper_bound(address);
  if (after == buffers_.begin()) return nullptr;
  auto& [begin, buffer] = *std::prev(after);
  return address - begin <= buffer.bytes && n <= buffer.bytes - (address - begin) ? &buffer
                                                                                  : nullptr;
}

bool DeviceMemory::copy_in(void* to, const void* from, size_t n) {
  uintptr_t address = reinterpret_cast<uintptr_t>(to);
  Buffer* buffer = find(address, n);
  if (!buffer) return false;
  std::memcpy(to, from, n);
  buffer->shadow.set(address - reinterpret_cast<uintptr_t>(buffer->data.get()), n);
  return true;
}

bool DeviceMemory::copy_out(void* to, const void* from, size_t n) {
  uintptr_t address = reinterpret_cast<uintptr_t>(from);
  Buffer* buffer = find(address, n);
  if (!buffer) return false;
  std::memcpy(to, from, n);
  return buffer->shadow.is_set(address - reinterpret_cast<uintptr_t>(buffer->data.get()), n);
}

void DeviceMemory::read(Lane& lane, const Instruction& i, uint64_t address, void* to, size_t n,
                        size_t alignment) {
  Buffer* buffer = find(address, n);
  if (!buffer) bad_address(lane, i, "out of bounds", address, n, "outside of all device memory");
  check_alignment(lane, i, address, alignment ? alignment : n);
  size_t at = address - reinterpret_cast<uintptr_t>(buffer->data.get());
  buffer->shadow.read(at, n, lane, access(lane, i, launch), "device memory");
  std::memcpy(to, buffer->data.get() + at, n);
}

void DeviceMemory::write(Lane& lane, const Instruction& i, uint64_t address, const void* from,
                         size_t n) {
  Buffer* buffer = find(address, n);
  if (!buffer) bad_address(lane, i, "out of bounds", address, n, "outside of all device memory");
  check_alignment(lane, i, address, n);
  size_t at = address - reinterpret_cast<uintptr_t>(buffer->data.get());
  buffer->shadow.write(at, n, lane, access(lane, i, launch), "device memory");
  std::memcpy(buffer->data.get() + at, from, n);
}

size_t SharedMemory::offset(Lane& lane, const Instruction& i, uint64_t address, size_t n) const {
  uint64_t at = address - shared_base;
  if (address < shared_base || at > data_.size() || n > data_.size() - at)
    bad_address(lane, i, "out of bounds", address, n,
                "outside of the block's " + std::to_string(data_.size()) +
                    " bytes of shared memory, which begin at 0x400");
  check_alignment(lane, i, address, n);
  return at;
}

void SharedMemory::read(Lane& lane, const Instruction& i, uint64_t address, void* to, size_t n) {
  size_t at = offset(lane, i, address, n);
  shadow_.read(at, n, lane, access(lane, i, 1), "shared memory");
  std::memcpy(to, data_.data() + at, n);
}

void SharedMemory::write(Lane& lane, const Instruction& i, uint64_t address, const void* from,
                         size_t n) {
  size_t at = offset(lane, i, address, n);
  shadow_.write(at, n, lane, access(lane, i, 1), "shared memory");
  std::memcpy(data_.data() + at, from, n);
}

void SharedMemory::begin(Lane& lane, const Instruction& i, uint64_t address, size_t n) {
  size_t at = offset(lane, i, address, n);
  Access now = access(lane, i, 1);
  now.clock = in_flight;
  shadow_.write(at, n, lane, now, "shared memory");
  std::memset(data_.data() + at, 0x7b, n);  // a number in every format: NaN would hide in a maximum
}

void SharedMemory::land(const Lane& lane, uint64_t address, const void* from, size_t n) {
  shadow_.land(address - shared_base, n, lane.clock[lane.id]);
  std::memcpy(data_.data() + (address - shared_base), from, n);
}

void read(Lane& lane, const Instruction& i, Space space, uint64_t address, void* to, size_t n) {
  if (space == Space::parameter) {
    const std::vector<char>& parameters = lane.block->launch.parameters;
    if (address > parameters.size() || n > parameters.size() - address)
      bad_address(lane, i, "out of bounds", address, n, "outside of the kernel's parameters");
    std::memcpy(to, parameters.data() + address, n);
    return;
  }
  bool window = address >> 56 == shared_window >> 56;
  if (space == Space::shared || (space == Space::generic && window)) {
    lane.block->statistics.note(lane, i, true, uint32_t(address), n);
    return lane.block->shared.read(lane, i, window ? address - shared_window : address, to, n);
  }
  lane.block->statistics.note(lane, i, false, address, n);
  device_memory().read(lane, i, address, to, n);
}

void write(Lane& lane, const Instruction& i, Space space, uint64_t address, const void* from,
           size_t n) {
  if (space == Space::parameter)
    bad_address(lane, i, "out of bounds", address, n, "among the parameters, which are constant");
  bool window = address >> 56 == shared_window >> 56;
  if (space == Space::shared || (space == Space::generic && window)) {
    lane.block->statistics.note(lane, i, true, uint32_t(address), n);
    return lane.block->shared.write(lane, i, window ? address - shared_window : address, from, n);
  }
  lane.block->statistics.note(lane, i, false, address, n);
  device_memory().write(lane, i, address, from, n);
}

}  // namespace emulator
