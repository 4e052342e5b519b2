// What the core asks of the CUDA side. Defined by cuda/, or by no_cuda/ where a build has none.
#pragma once

#include <string>

namespace fanano {

bool built_with_cuda();
std::string why_no_cuda();  // empty when CUDA kernels can run here

}  // namespace fanano
