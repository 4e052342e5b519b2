// Python arrays as the core sees them. With its sources and elements.cpp the only one that reads
// DLPack; what lends memory through it is buffer.hpp.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <vector>

#include "array.hpp"
#include "cuda.hpp"

namespace nb = nanobind;

namespace fanano {

namespace dlpack {
struct ExchangeApi;
}

// Owns what a library lent us: its deleter runs exactly once, in a thread that holds the GIL.
class Loan {
 public:
  Loan() = default;
  Loan(const Loan&) = delete;
  ~Loan();
  void hold(void* managed, bool versioned) { managed_ = managed, versioned_ = versioned; }

 private:
  void* managed_ = nullptr;
  bool versioned_ = false;
};

// Where an array's numbers are: in memory that the CPU reads, or in a CUDA device's.
struct Device {
  bool cuda = false;
  int32_t id = 0;
  bool operator==(const Device&) const = default;
};
std::string text_of(Device);  // "CPU", "CUDA:1"

// A CUDA stream by DLPack's number for it, which is the handle that CUDA knows it by. None: null.
void* stream_of(nb::handle number);
inline void* const legacy_stream = reinterpret_cast<void*>(1);  // CUDA calls it 0 as well

class Imported;

// Where an array of a call may be, and what its library is told of that.
struct Where {
  bool cuda = false;       // on a CUDA device, too
  void* stream = nullptr;  // that the call launches on there; null: nobody has chosen one yet
  const Imported* first = nullptr;  // whose device that has to be: another has other streams
};

// An array of any library, described by it and checked by us: device, rank, extents, dtype, lanes,
// memory. Keeps the array alive; must be made and destroyed with the GIL, used without it at will.
class Imported {
 public:
  enum class Access { read, write };

  // Throws TypeError or ValueError naming the argument. Memory of a device is described alone: what
  // is in it nobody looks at.
  Imported(nb::handle source, const char* argument, Access = Access::read, Where = {});
  Imported(const Imported&) = delete;

  // A new array of this shape and dtype, made by the library of `like` through its DLPack exchange,
  // on its device.
  Imported(const Imported& like, const char* argument, const Array& wanted);

  nb::object object() const { return source_; }

  // Its device, and the stream there that its library's work on it comes before: the library's
  // current one, or what the call chose.
  Device device() const { return device_; }
  void* stream() const { return stream_; }

  // For the other arrays of a call that begins with this one; they must be on its device.
  Where beside() const { return {true, stream_, this}; }
  void check_beside(const Imported& first) const;

  // As one of the four floating dtypes; any other is a TypeError. Points into this object.
  Array floats() const;

  // As one of these or booleans: a mask. Any other is a TypeError.
  Array mask() const;

  // The numbers of an array of at most two axes and a floating dtype, the last axis fastest.
  std::vector<double> reals() const;

  // How many numbers a 0-D or 1-D array has; any other is a ValueError.
  int64_t count() const;

  // The numbers of a 0-D or 1-D array of int32 or int64.
  std::vector<int64_t> integers() const;

  // The same of arrays on a device, where nobody looks at them.
  DeviceNumbers device_integers() const;
  DeviceNumbers device_reals() const;

  bool scalar() const { return ndim_ == 0; }
  int ndim() const { return ndim_; }
  const int64_t* shape() const { return shape_; }

 private:
  void from_numpy();
  void from_exchange(Access);
  void from_capsule(Access, Where);
  void check_device(const Where&) const;
  void work_on(void* stream);
  void check_integers() const;
  DeviceNumbers device_numbers(DeviceNumbers::Kind) const;
  void hold_versioned(void* managed);
  void describe(const void* dltensor);
  void set_rank(int64_t);
  void set_device(int32_t type, int32_t id);
  bool empty() const;
  std::optional<Dtype> dtype() const;  // nothing: none that the library knows
  Array described(Dtype) const;        // checks extents and memory
  std::string dtype_text() const;

  nb::object source_;
  const char* argument_;
  const dlpack::ExchangeApi* api_ = nullptr;  // of the array's type, if it has one
  Loan loan_;
  Device device_;
  bool cuda_allowed_ = false;
  void* stream_ = nullptr;
  void* data_ = nullptr;
  uint8_t code_ = 0;
  int bits_ = 0, lanes_ = 1, ndim_ = 0;
  bool writable_ = true;
  int64_t shape_[max_ndim], strides_[max_ndim];
};

// Whether Imported would try: NumPy's arrays and whatever has __dlpack__.
bool is_array(nb::handle);

}  // namespace fanano
