// What can be said of a checked problem without looking at its arrays.
#pragma once

#include "problem.hpp"

namespace fanano {

std::string shape_words(const Problem&);   // "batch 1, heads 2 over 2, ...", and the dtype
std::string option_words(const Problem&);  // "causal, lengths"; empty when it has none

// Sinks beyond it stand for it: no weight depends on that, for exponents are 0 or minus infinity
// long before, and no sum is infinite by it.
double largest_sink(const Problem&);

// Bytes of all scores, as the algorithms but flash materialise them. Throws ValueError where they
// are more than can be addressed.
int64_t scores_bytes(const Problem&);

}  // namespace fanano
