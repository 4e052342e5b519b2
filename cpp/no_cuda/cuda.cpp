// What a build without CUDA links in place of the CUDA kernels.
#include "cuda.hpp"

#include "errors.hpp"

namespace fanano {

bool built_with_cuda() { return false; }

std::vector<std::string> cuda_machine_code() { return {}; }

std::string why_no_cuda() { return "this build of fanano has no CUDA kernels"; }

std::vector<CudaKernel> cuda_kernels() { return {}; }

int64_t device_workspace(const Problem&, const DeviceOptions&) { return 0; }

void forward_on_device(const Problem&, int, void*, void*, const DeviceOptions&) {
  refuse("no_cuda", why_no_cuda());
}

void* allocate_on_device(int64_t, int, void*) { refuse("no_cuda", why_no_cuda()); }

void free_on_device(void*, int, void*, bool) noexcept {}

void let_wait(void*, void*, int) { refuse("no_cuda", why_no_cuda()); }

int device_of(void*) { refuse("no_cuda", why_no_cuda()); }

void fetch(const DeviceNumbers&, int64_t, void*, int, void*) { refuse("no_cuda", why_no_cuda()); }

int64_t backward_device_workspace(const Problem&, const DeviceOptions&) { return 0; }

void backward_on_device(const Problem&, int, void*, void*, const DeviceOptions&) {
  refuse("no_cuda", why_no_cuda());
}

}  // namespace fanano
