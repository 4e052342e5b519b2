// What the core asks of CUDA (cpp/cuda.hpp): whether a device can run the kernels, which of them
// takes a problem, and its launch.
#include "../cpp/cuda.hpp"

#include <algorithm>
#include <type_traits>

#include "../cpp/errors.hpp"
#include "../cpp/problem_facts.hpp"
#include "kernels_table.hpp"

namespace fanano {
namespace {

std::string version_words(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// What failed is told once: it must not be found again by who launches next.
void check(cudaError_t error, const std::string& call, int device) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  refuse("cuda", call, device, cudaGetErrorString(error));
}

// Makes a device the calling thread's current one, for a while.
class CurrentDevice {
  int device_, before_ = 0;

 public:
  explicit CurrentDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "cudaGetDevice", device);
    if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice", device);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  ~CurrentDevice() {
    if (before_ != device_ && cudaSetDevice(before_)) cudaGetLastError();  // told by nobody
  }
};

// The problem's arrays that are in host memory, all of numbers of 8 bytes: f(pointer, how many).
template <class P, class F> void for_host_arrays(P& p, F f) {
  const Shape& s = p.shape;
  const OnDevice& there = p.on_device;
  auto each = [&](auto& data, bool on_device, int64_t n) {
    if (data && !on_device) f(data, n);
  };
  each(p.lengths.queries, there.queries, s.batch);
  each(p.lengths.keys, there.keys, s.batch);
  each(p.lengths.q_offset, there.q_offset, s.batch);
  each(p.score.slopes, there.slopes, p.score.slopes_batch ? s.batch * s.heads : s.heads);
  each(p.score.sinks, there.sinks, s.heads);
}

// The ladder has no dropout.
const cuda::Kernels* ladder_for(const Problem& p) {
  if (p.dropout.p) return nullptr;
  for (const cuda::Kernels* kernels : cuda::all_kernels)
    if (kernels->dtype == p.dtype) return kernels;
  return nullptr;
}

// The first variant that takes the problem; null: none does.
template <class Kernel, size_t N>
const Kernel* first_for(const Problem& p, const Kernel* const (&variants)[N]) {
  for (const Kernel* kernel : variants)
    if (kernel->dtype == p.dtype && kernel->takes(p)) return kernel;
  return nullptr;
}

[[noreturn]] void refuse_problem(const Problem& p, const char* asked) {
  std::string words = std::string(asked) + ", " + shape_words(p);
  if (p.out_dtype != p.dtype) words += std::string(" to ") + name(p.out_dtype);
  const std::string options = option_words(p);
  refuse("no_cuda_kernel", options.empty() ? words : words + "; " + options);
}

int64_t host_arrays_bytes(const Problem& p) {
  int64_t bytes = 0;
  for_host_arrays(p, [&](auto*, int64_t n) { bytes += 8 * n; });
  return bytes;
}

// The problem, whose every pointer is of the device: a copy of those arrays is at `next`, which
// moves on.
Problem on_device(Problem p, char*& next, cudaStream_t stream, int device) {
  for_host_arrays(p, [&](auto& data, int64_t n) {
    check(cuda::upload(data, n, next, stream), "the copy of lengths, slopes or sinks", device);
    data = reinterpret_cast<std::remove_reference_t<decltype(data)>>(next);
    next += 8 * n;
  });
  return p;
}

std::string kernel_words(const char* kernel, const Problem& p) {
  return std::string("the kernel ") + kernel + " (" + name(p.dtype) + ")";
}

// Bytes of a kernel's own workspace, after which numbers of 8 bytes may stand.
int64_t own_bytes(const cuda::BackwardKernel* kernel, const Problem& p) {
  return kernel ? (kernel->workspace(p) + 7) / 8 * 8 : 0;
}

}  // namespace

bool built_with_cuda() { return true; }

std::string why_no_cuda() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver), cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return "this machine has no CUDA driver";
    return "the driver of this machine is too old: it is for CUDA " + version_words(driver) +
           ", this build needs " + version_words(runtime);
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && devices == 0))
    return "the driver sees no CUDA device";
  if (error == cudaErrorInitializationError)
    return "CUDA does not start in this process; one that was forked after its parent had begun to "
           "use CUDA cannot use it";
  if (error) return std::string("CUDA does not start: ") + cudaGetErrorString(error);

  int best = 0;
  for (int device = 0; device < devices; ++device) {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    best = std::max(best, 10 * major + minor);
  }
  cudaGetLastError();
  if (best >= cuda::least_capability) return {};
  return "the kernels need a device of sm_" + std::to_string(cuda::least_capability) +
         " or newer; the best one here is of sm_" + std::to_string(best);
}

std::vector<CudaKernel> cuda_kernels() {
  const std::string architecture = "sm_" + std::to_string(cuda::least_capability);
  std::vector<CudaKernel> rows;
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels)
    rows.push_back({kernel->name, architecture, kernel->dtype});
  for (const cuda::BackwardKernel* kernel : cuda::all_backward_kernels)
    rows.push_back({kernel->name, architecture, kernel->dtype});
  for (const cuda::Kernels* kernels : cuda::all_kernels)
    rows.push_back({"materialised", architecture, kernels->dtype});
  return rows;
}

int64_t device_workspace(const Problem& p) {
  int64_t bytes = host_arrays_bytes(p);
  if (p.algorithm != Algorithm::flash && __builtin_add_overflow(bytes, scores_bytes(p), &bytes))
    refuse("scores_memory", name(p.algorithm));
  return bytes;
}

void forward_on_device(const Problem& problem, int device, void* stream, void* workspace) {
  const bool flash = problem.algorithm == Algorithm::flash;
  const cuda::FlashKernel* kernel = flash ? first_for(problem, cuda::all_flash_kernels) : nullptr;
  const cuda::Kernels* ladder = flash ? nullptr : ladder_for(problem);
  if (!kernel && !ladder) refuse_problem(problem, name(problem.algorithm));

  const CurrentDevice current(device);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  char* next = static_cast<char*>(workspace);
  const Problem p = on_device(problem, next, on, device);
  check(kernel ? kernel->launch(p, on) : ladder->materialised(p, next, on),
        kernel_words(kernel ? kernel->name : "materialised", p), device);
}

int64_t backward_device_workspace(const Problem& p) {
  return own_bytes(first_for(p, cuda::all_backward_kernels), p) + host_arrays_bytes(p);
}

void backward_on_device(const Problem& problem, int device, void* stream, void* workspace) {
  const cuda::BackwardKernel* kernel = first_for(problem, cuda::all_backward_kernels);
  if (!kernel) refuse_problem(problem, "backward");

  const CurrentDevice current(device);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  char* next = static_cast<char*>(workspace) + own_bytes(kernel, problem);
  const Problem p = on_device(problem, next, on, device);
  check(kernel->launch(p, workspace, on), kernel_words(kernel->name, p), device);
}

}  // namespace fanano
