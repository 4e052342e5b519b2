// What ends a launch: the first thing that a kernel does wrong, in words that name the source.
#pragma once

#include <stdexcept>
#include <string>

namespace emulator {

struct Fault : std::runtime_error { using std::runtime_error::runtime_error; };

}  // namespace emulator
