// Python scalars, words and small lists as the core sees them. Each throws TypeError or ValueError
// with the argument's name, which nanobind's own conversions do not know.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "problem.hpp"
#include "tensors.hpp"

namespace fanano {

std::string word(nb::handle, const char* argument);
bool flag(nb::handle, const char* argument);
double number(nb::handle, const char* argument);
int64_t integer(nb::handle, const char* argument);
std::vector<int64_t> extents(nb::handle, const char* argument);  // a tuple or list of ints >= 0

// str(object), whatever comes of it: for messages.
std::string text_of(nb::handle);

// Whether it is an integer of 32 bits, and which.
bool read_int32(nb::handle, int32_t* value);

// None, one integer, or one for each sequence: a list, a tuple or an array of any library, which
// may be on the device of `query`; null: there is none. FANANO_CHECK=1 in the environment has what
// is there copied to the host, at the cost of a wait, and checked like all that is.
class Numbers {
 public:
  Numbers(nb::handle, const char* argument, int64_t batch, const Imported* query);
  Integers integers() const { return integers_; }
  const DeviceNumbers& on_device() const { return on_device_; }

 private:
  std::vector<int64_t> values_;
  std::optional<Imported> array_;
  Integers integers_;
  DeviceNumbers on_device_;
};

// None, one number, or numbers for each head: a list, a list of lists or an array, as above.
class RealNumbers {
 public:
  RealNumbers(nb::handle, const char* argument, int64_t batch, int64_t heads, bool batches,
              const Imported* query);
  Reals reals() const { return reals_; }
  const DeviceNumbers& on_device() const { return on_device_; }

 private:
  std::vector<double> values_;
  std::optional<Imported> array_;
  Reals reals_;
  DeviceNumbers on_device_;
};

// window_size: None, or a pair of which None and negative numbers are unbounded.
Window window(nb::handle);

// dropout_p, seed and dropout_offset (four integers). The seed: None, or an integer of 64 bits,
// negative or not, or an array of one, which may be on the device of `query`, as above.
class DropoutNumbers {
 public:
  DropoutNumbers(nb::handle p, nb::handle seed, nb::handle offset, const Imported* query);
  Dropout dropout() const { return dropout_; }
  const DeviceNumbers& seed_on_device() const { return on_device_; }

 private:
  std::optional<Imported> array_;
  Dropout dropout_;
  DeviceNumbers on_device_;
};

}  // namespace fanano
