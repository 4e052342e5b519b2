// What the core asks of the CUDA side. Defined by cuda/, or by no_cuda/ where a build has none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "problem.hpp"

namespace fanano {

bool built_with_cuda();

// Why no device of this machine can run the kernels, in words; empty when one can. CUDA is not
// looked for before this is called, and it is looked for at every call.
std::string why_no_cuda();

// A row of the kernels that attention chooses from.
struct CudaKernel {
  std::string name, architecture;  // "materialised", "sm_80": and what is newer
  Dtype dtype;
};
std::vector<CudaKernel> cuda_kernels();  // best first; none without CUDA

// Bytes of device memory that forward_on_device() needs beside the arrays, at a multiple of 256:
// for lengths, offsets, slopes and sinks, which it copies there, and for materialised scores.
// Throws ValueError when those are more than can be addressed.
int64_t device_workspace(const Problem&);

// Attention of a checked problem whose arrays are memory of that CUDA device, and whose lengths,
// offsets, slopes and sinks are in host memory and may be freed on return. Launches on the stream
// (a cudaStream_t) and returns without waiting. The calling thread's current device is as before.
// Throws NotImplementedError where no kernel takes the problem, RuntimeError where CUDA fails.
void forward_on_device(const Problem&, int device, void* stream, void* workspace);

// The same for the gradients of a problem that has been described with them; every array of
// p.gradient is memory of the device. The workspace has what the kernels know of each row, too.
int64_t backward_device_workspace(const Problem&);
void backward_on_device(const Problem&, int device, void* stream, void* workspace);

}  // namespace fanano
