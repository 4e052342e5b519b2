// Attention as compiled JAX calls it: handlers of XLA's foreign function interface. Defined by
// xla/, or by no_xla/ where the interface's headers were not found.
#pragma once

#include <utility>

namespace fanano {

// The version of the interface that this build speaks, (major, minor); it works with that and every
// later one. (0, 0): there are no handlers.
std::pair<int, int> xla_version();

// Functions for XLA to register, for its platforms "cpu" and "CUDA"; null where there are none.
// Operands, results and numbers go by the names of fanano.attention and attention_backward; how is
// said in xla/call.hpp.
void* xla_attention();
void* xla_attention_backward();
void* xla_attention_cuda();
void* xla_attention_backward_cuda();

}  // namespace fanano
