// What a build without CUDA links in place of the CUDA kernels.
#include "cuda.hpp"

#include "errors.hpp"

namespace fanano {

bool built_with_cuda() { return false; }

std::string why_no_cuda() { return "this build of fanano has no CUDA kernels"; }

std::vector<CudaKernel> cuda_kernels() { return {}; }

int64_t device_workspace(const Problem&) { return 0; }

void forward_on_device(const Problem&, int, void*, void*) { refuse("no_cuda", why_no_cuda()); }

int64_t backward_device_workspace(const Problem&) { return 0; }

void backward_on_device(const Problem&, int, void*, void*) { refuse("no_cuda", why_no_cuda()); }

}  // namespace fanano
