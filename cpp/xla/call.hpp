// One call of XLA's, by name: an attribute that is named like an operand or a result is its place
// among them, every other is a number or a word. What has no attribute was not given.
#pragma once

#include <xla/ffi/api/ffi.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "cuda.hpp"
#include "problem.hpp"

namespace fanano {

class Call {
 public:
  enum Where : bool { on_host, on_device };

  Call(xla::ffi::Dictionary attributes, xla::ffi::RemainingArgs operands,
       xla::ffi::RemainingRets results, Where where = on_host)
      : attributes_(attributes), operands_(operands), results_(results), where_(where) {}

  // What it asks for, as a checked problem that lives as long as this object.
  const Description& attention();
  const Description& attention_backward();

  // The small operands of a problem on a device: XLA has them there, and nobody looks at them.
  const DeviceOptions& device_options() const { return device_options_; }

 private:
  struct Described {
    Array array;
    std::vector<int64_t> shape, strides;
  };

  // Arrays point to what this object holds; null where the name was not given.
  const Array* operand(const char* name);
  const Array* result(const char* name);

  // As many numbers as a small operand has. On a device they are described in the last argument.
  Integers integers(const char* name, DeviceNumbers&);
  Reals reals(const char* name, DeviceNumbers&);

  std::optional<double> number(const char* name) const { return attribute<double>(name); }
  std::optional<int64_t> integer(const char* name) const { return attribute<int64_t>(name); }
  std::string word(const char* name) const;

  // What attention and its backward have in common; of the numbers, those that were given.
  Request request();

  template <class T> std::optional<T> attribute(const char* name) const;
  std::optional<xla::ffi::AnyBuffer> buffer(const char* name) const;
  const Array* describe(const xla::ffi::AnyBuffer&);

  xla::ffi::Dictionary attributes_;
  xla::ffi::RemainingArgs operands_;
  xla::ffi::RemainingRets results_;
  Where where_;
  DeviceOptions device_options_;
  std::optional<Description> description_;
  std::deque<Described> arrays_;
  std::deque<std::vector<int64_t>> integers_;
  std::deque<std::vector<double>> reals_;
};

}  // namespace fanano
