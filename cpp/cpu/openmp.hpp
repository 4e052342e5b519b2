// The OpenMP threads of a library in this process. For a while after each of its operations they
// spin, so between two of them a thread of our own has to share its CPU with one.
#pragma once

#include "cpu/parallel.hpp"

namespace fanano {

// Whether the OpenMP that this shared library's own calls are bound to was found; openmp() has its
// threads from then on.
bool borrow_openmp(const char* library);

// Null: none were borrowed, or this is a forked child, which has none of its parent's threads while
// OpenMP believes in them.
Lender* openmp();

}  // namespace fanano
