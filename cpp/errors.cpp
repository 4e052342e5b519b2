#include "errors.hpp"

#include <cstdio>

namespace fanano {

std::string text_of_number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", x);
  return text;
}

std::string filled(const Refusal& row, std::initializer_list<std::string> values) {
  std::string words;
  size_t next = 0;  // the first character not yet copied
  for (const std::string& value : values) {
    size_t blank = row.text.find('{', next);
    words += row.text.substr(next, blank - next);
    words += value;
    next = row.text.find('}', blank) + 1;
  }
  return words += row.text.substr(next);
}

void throw_error(const Refusal& row, std::initializer_list<std::string> values) {
  switch (row.error) {
    case Error::type: throw TypeError(filled(row, values));
    case Error::runtime: throw RuntimeError(filled(row, values));
    case Error::missing: throw NotImplementedError(filled(row, values));
    default: throw ValueError(filled(row, values));
  }
}

}  // namespace fanano
