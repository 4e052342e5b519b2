// What the core asks of the CUDA side. Defined by cuda/, or by no_cuda/ where a build has none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "problem.hpp"

namespace fanano {

bool built_with_cuda();
std::vector<std::string> cuda_machine_code();  // "sm_80": what needs no compiling by the driver

// Why no device of this machine can run the kernels, in words; empty when one can. CUDA is not
// looked for before this is called, and it is looked for at every call.
std::string why_no_cuda();

// A row of the kernels that attention chooses from.
struct CudaKernel {
  std::string name, architecture;  // "materialised", "sm_80": and what is newer
  Dtype dtype;
};
std::vector<CudaKernel> cuda_kernels();  // best first; none without CUDA

// Numbers on a device as their library has them, in rows of so many columns.
struct DeviceNumbers {
  enum Kind : uint8_t { int32, int64, float16, bfloat16, float32, float64 };
  const void* data = nullptr;
  Kind kind = int64;
  int64_t columns = 1, row = 0, column = 0;  // strides, in elements
};

// The small arrays of a problem that are on its device. Those that are not as the kernels read
// them, int64 or float64, one after the other, are made so before; those without data are taken to
// be.
struct DeviceOptions { DeviceNumbers q_lengths, kv_lengths, q_offset, alibi_slopes, sinks, seed; };

// Bytes of device memory that forward_on_device() needs beside the arrays, at a multiple of 256:
// for lengths, offsets, slopes and sinks, which it copies there, and for materialised scores.
// Throws ValueError when those are more than can be addressed.
int64_t device_workspace(const Problem&, const DeviceOptions& = {});

// Attention of a checked problem whose arrays are memory of that CUDA device, and whose lengths,
// offsets, slopes and sinks are there, too, or in host memory and may be freed on return. Launches
// on the stream (a cudaStream_t) and returns without waiting. The calling thread's current device
// is as before. Throws NotImplementedError where no kernel takes the problem, RuntimeError where
// CUDA fails.
void forward_on_device(const Problem&, int device, void* stream, void* workspace,
                       const DeviceOptions& = {});

// ---- for arrays whose library has no such thing of its own ----

// Memory that is taken in the order of a stream, and given back in it: what the stream was given
// before that may still use it. `settle`: after all that the device was given by anyone.
void* allocate_on_device(int64_t bytes, int device, void* stream);
void free_on_device(void*, int device, void* stream, bool settle) noexcept;

// Lets what the first stream is given from now on come after what the second was given so far.
void let_wait(void* waiting, void* stream, int device);

// The device of a stream that is not one of CUDA's default streams, which every device has.
int device_of(void* stream);

// So many of the numbers, int64 or float64, in host memory: waits for the stream.
void fetch(const DeviceNumbers&, int64_t n, void* to, int device, void* stream);

// The same for the gradients of a problem that has been described with them; every array of
// p.gradient is memory of the device. The workspace has what the kernels know of each row, too.
int64_t backward_device_workspace(const Problem&, const DeviceOptions& = {});
void backward_on_device(const Problem&, int device, void* stream, void* workspace,
                        const DeviceOptions& = {});

}  // namespace fanano
