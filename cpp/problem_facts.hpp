// What can be said of a checked problem without looking at its arrays.
#pragma once

#include "problem.hpp"

namespace fanano {

std::string shape_words(const Problem&);   // "batch 1, heads 2 over 2, ...", and the dtype
std::string option_words(const Problem&);  // "causal, lengths"; empty when it has none

// Bytes of all scores, as the algorithms but flash materialise them. Throws ValueError where they
// are more than can be addressed.
int64_t scores_bytes(const Problem&);

}  // namespace fanano
