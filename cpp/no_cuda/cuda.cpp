// What a build without CUDA links in place of the CUDA kernels.
#include "cuda.hpp"

namespace fanano {

bool built_with_cuda() { return false; }

std::string why_no_cuda() { return "this build of fanano has no CUDA kernels"; }

}  // namespace fanano
