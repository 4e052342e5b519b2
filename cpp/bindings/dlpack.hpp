// The memory layouts by which libraries hand arrays to each other, declared by us so that no header
// of theirs is needed: DLPack 1.3 (dmlc.github.io/dlpack) and NumPy's __array_struct__
// (numpy.org/doc/stable/reference/arrays.interface.html). For tensors.cpp, elements.cpp and
// buffer.cpp alone.
#pragma once

#include <cstdint>

#include "problem.hpp"

namespace fanano::dlpack {

enum Device : int32_t { cpu = 1, cuda = 2, cuda_host = 3, rocm_host = 11, cuda_managed = 13 };

enum Code : uint8_t {
  int_ = 0,
  uint_ = 1,
  float_ = 2,
  opaque = 3,
  bfloat = 4,
  complex = 5,
  bool_ = 6
};

inline constexpr uint64_t read_only = 1;  // of flags

struct Version { uint32_t major, minor; };

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

inline DataType type_of(Dtype dtype) {
  uint8_t code = dtype == Dtype::bfloat16 ? bfloat : float_;
  return {code, uint8_t(8 * size_of(dtype)), 1};
}

struct DLTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null: contiguous
  uint64_t byte_offset;
};

struct ManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

struct ManagedTensorVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedTensorVersioned*);
  uint64_t flags;
  DLTensor tensor;
};

// The functions of a type's __dlpack_c_exchange_api__: 0 means done, else a Python error is set.
struct ExchangeApi {
  Version version;
  ExchangeApi* older;
  int (*allocate)(DLTensor*, ManagedTensorVersioned**, void*,
                  void (*)(void*, const char*, const char*));
  int (*managed_from_object)(void* object, ManagedTensorVersioned**);
  int (*managed_to_object)(ManagedTensorVersioned*, void** object);
  int (*tensor_from_object)(void* object, DLTensor*);  // borrowed; may be null
  int (*current_stream)(int32_t device_type, int32_t device_id, void** stream);
};

}  // namespace fanano::dlpack

namespace fanano::array_struct {

enum Flag : int { aligned = 0x100, native_bytes = 0x200, writable = 0x400 };

struct Interface {
  int two;  // always 2
  int ndim;
  char kind;
  int item_size;
  int flags;
  intptr_t* shape;
  intptr_t* strides;  // in bytes
  void* data;
  void* description;
};

}  // namespace fanano::array_struct
