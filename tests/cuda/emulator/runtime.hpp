// What a test may ask of the emulator beyond the CUDA runtime that runtime.cpp stands in for.
#pragma once

#include <string>

namespace emulator {

// The words of the last launch or copy that failed; empty since the last call: none did.
std::string take_failure();

}  // namespace emulator
