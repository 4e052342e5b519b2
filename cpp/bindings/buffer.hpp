// Memory for a result, which a library takes over through DLPack.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <utility>
#include <vector>

#include "problem.hpp"
#include "tensors.hpp"

namespace fanano {

// Giving it back touches nothing of Python's: a library may do that in a thread of its own, while
// Python is busy or shutting down.
class Buffer {
 public:
  Buffer(std::vector<int64_t> shape, Dtype);

  // On a CUDA device, for work on this stream. Who borrows it for another stream has that wait for
  // this one's work so far; what was lent so is given back after all work on the device, because
  // its last user is not known.
  Buffer(std::vector<int64_t> shape, Dtype, Device, void* stream);

  std::pair<int, int> dlpack_device() const;

  // What __dlpack__ returns: a capsule of DLPack 1 to who knows it, else of DLPack 0.
  nanobind::object lend(nanobind::handle max_version, nanobind::handle stream) const;

 private:
  struct Memory {
    Memory(size_t bytes, Device, void* stream);
    Memory(const Memory&) = delete;
    ~Memory();

    Device device;
    void* stream;
    void* data;
    bool lent_elsewhere = false;
  };

  template <class Managed> nanobind::object lend_as() const;

  std::vector<int64_t> shape_, strides_;
  Dtype dtype_;
  std::shared_ptr<Memory> memory_;
};

}  // namespace fanano
