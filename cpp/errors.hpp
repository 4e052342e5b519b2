// The one way to refuse a call: by a row of the table in refusals.hpp.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "refusals.hpp"

namespace fanano {

// The words of a row, its blanks filled from left to right.
std::string filled(const Refusal&, std::initializer_list<std::string> values);

[[noreturn]] void throw_error(const Refusal&, std::initializer_list<std::string> values);

// What the bindings turn into Python's errors of the same names. Nothing else makes them, so that
// no message stands outside of the table.
class TypeError : public std::runtime_error {
  explicit TypeError(const std::string& words) : runtime_error(words) {}
  friend void throw_error(const Refusal&, std::initializer_list<std::string>);
};
class ValueError : public std::runtime_error {
  explicit ValueError(const std::string& words) : runtime_error(words) {}
  friend void throw_error(const Refusal&, std::initializer_list<std::string>);
};

class RuntimeError : public std::runtime_error {
  explicit RuntimeError(const std::string& words) : runtime_error(words) {}
  friend void throw_error(const Refusal&, std::initializer_list<std::string>);
};

class NotImplementedError : public std::runtime_error {
  explicit NotImplementedError(const std::string& words) : runtime_error(words) {}
  friend void throw_error(const Refusal&, std::initializer_list<std::string>);
};

// A row by its id. The compiler looks it up: it stops at an id that no row has, and where the
// values are not as many as the blanks.
template <size_t values> struct Rule {
  consteval Rule(const char* id) : row(find(id)) {
    if (std::count(row.text.begin(), row.text.end(), '{') != values)
      throw "the row has more or fewer blanks than there are values";
  }
  static consteval const Refusal& find(std::string_view id) {
    for (const Refusal& row : refusals)
      if (row.id == id) return row;
    throw "no row of the table has this id";
  }
  const Refusal& row;
};

std::string text_of_number(double);  // as short as six digits allow: "1e-30", "0.5", "nan"

template <class T> std::string text_of_value(const T& x) {
  if constexpr (std::is_floating_point_v<T>)
    return text_of_number(x);
  else if constexpr (std::is_arithmetic_v<T>)
    return std::to_string(x);
  else
    return x;
}

// refuse("by_batch", "kv_lengths", 2, 3): throws what the row says.
template <class... Values>
[[noreturn, gnu::cold]] void refuse(Rule<sizeof...(Values)> rule, const Values&... values) {
  throw_error(rule.row, {text_of_value(values)...});
}

// The words alone, for an error that has a cause.
template <class... Values>
std::string refusal(Rule<sizeof...(Values)> rule, const Values&... values) {
  return filled(rule.row, {text_of_value(values)...});
}

}  // namespace fanano
