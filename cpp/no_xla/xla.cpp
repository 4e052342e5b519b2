// What a build without XLA's headers links in place of the handlers.
#include "xla.hpp"

namespace fanano {

std::pair<int, int> xla_version() { return {0, 0}; }
void* xla_attention() { return nullptr; }
void* xla_attention_backward() { return nullptr; }
void* xla_attention_cuda() { return nullptr; }
void* xla_attention_backward_cuda() { return nullptr; }

}  // namespace fanano
