// What one instruction set has to be measured, behind pointers: a program compiled for any x86 can
// run the rows that the machine has.
#pragma once

#include <cstdint>

namespace fanano {

struct Micro {
  const char* name;
  bool products;                  // run() returns floating-point operations; else vectors
  double (*run)(int64_t rounds);  // all memory is in the first-level cache, or nearly so
};

struct MicroTable {
  const char* isa;
  int width;  // floats of a vector
  const Micro* begin;
  const Micro* end;
};

}  // namespace fanano
