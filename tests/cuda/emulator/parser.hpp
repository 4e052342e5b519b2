// From the text of PTX to a Program. Throws std::runtime_error, with the line, for what it does not
// know: nothing is passed over in silence.
#pragma once

#include <string>
#include <string_view>

#include "program.hpp"

namespace emulator {

Program parse(std::string_view ptx, const std::string& file = "ptx");

}  // namespace emulator
