// Memory for a result, which a library takes over through DLPack.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <vector>

#include "problem.hpp"

namespace fanano {

// Giving it back touches nothing of Python's: a library may do that in a thread of its own, while
// Python is busy or shutting down.
class Buffer {
 public:
  Buffer(std::vector<int64_t> shape, Dtype);

  // What __dlpack__ returns: a capsule of DLPack 1 to who knows it, else of DLPack 0.
  nanobind::object lend(nanobind::handle max_version) const;

 private:
  template <class Managed> nanobind::object lend_as() const;

  std::shared_ptr<void> data_;
  std::vector<int64_t> shape_, strides_;
  Dtype dtype_;
};

}  // namespace fanano
