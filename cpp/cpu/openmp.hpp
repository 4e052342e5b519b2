// The OpenMP threads of torch, where torch is in this process. For a while after each of its
// operations they spin, so between two of them a thread of our own has to share its CPU with one.
#pragma once

#include "cpu/parallel.hpp"

namespace fanano {

// Null where there are none: torch is not loaded or has another pool, or this is a forked child,
// which has none of its parent's threads while OpenMP believes in them.
Lender* openmp_of_torch();

}  // namespace fanano
