// The first half of the parser: text into statements, each with its scope and its source line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "program.hpp"

namespace emulator {

struct Statement {
  enum Kind : uint8_t { instruction, label, declaration, header } kind;
  std::string text;  // without its semicolon or colon
  int line;          // of the PTX
  int scope;         // 0: the module
  Where where;
};

struct Statements {
  std::vector<Statement> list;
  std::vector<int> parent{-1};  // of each scope
};

// A header is what stands before the brace of a kernel: name, parameters, bounds. Its text belongs
// to the scope that it opens.
Statements statements(std::string_view ptx, const std::string& file);

// The parts of a list at its commas, but not at those within brackets; blanks are dropped.
std::vector<std::string> split(std::string_view list, char separator = ',');

}  // namespace emulator
