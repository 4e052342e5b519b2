// One call of XLA's, by name: an attribute that is named like an operand or a result is its place
// among them, every other is a number or a word. What has no attribute was not given.
#pragma once

#include <xla/ffi/api/ffi.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "problem.hpp"

namespace fanano {

class Call {
 public:
  Call(xla::ffi::Dictionary attributes, xla::ffi::RemainingArgs operands,
       xla::ffi::RemainingRets results)
      : attributes_(attributes), operands_(operands), results_(results) {}

  // Arrays point to what this object holds; null where the name was not given.
  const Array* operand(const char* name);
  const Array* result(const char* name);

  // As many numbers as a small operand has.
  Integers integers(const char* name);
  Reals reals(const char* name);

  std::optional<double> number(const char* name) const { return attribute<double>(name); }
  std::optional<int64_t> integer(const char* name) const { return attribute<int64_t>(name); }
  std::string word(const char* name) const;

  // What attention and its backward have in common; of the numbers, those that were given.
  Request request();

 private:
  struct Described {
    Array array;
    std::vector<int64_t> shape, strides;
  };

  template <class T> std::optional<T> attribute(const char* name) const;
  std::optional<xla::ffi::AnyBuffer> buffer(const char* name) const;
  const Array* describe(const xla::ffi::AnyBuffer&);

  xla::ffi::Dictionary attributes_;
  xla::ffi::RemainingArgs operands_;
  xla::ffi::RemainingRets results_;
  std::deque<Described> arrays_;
  std::deque<std::vector<int64_t>> integers_;
  std::deque<std::vector<double>> reals_;
};

}  // namespace fanano
