// What the core asks of CUDA (cpp/cuda.hpp): whether a device can run the kernels, which of them
// takes a problem, and its launch.
#include "../cpp/cuda.hpp"

#include <cuda.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "../cpp/errors.hpp"
#include "../cpp/problem_facts.hpp"
#include "kernels_table.hpp"
#include "upload.hpp"

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

// A function of the driver, which nothing is linked with: a machine may have none. Its errors are
// the runtime's.
template <class... Arguments> cudaError_t driver(const char* function, Arguments... arguments) {
  void* found = nullptr;
  constexpr unsigned version = 12000;  // of those that have the same name
  if (cudaError_t error =
          cudaGetDriverEntryPointByVersion(function, &found, version, cudaEnableDefault, nullptr))
    return error;
  if (!found) return cudaErrorSymbolNotFound;
  return cudaError_t(reinterpret_cast<CUresult (*)(Arguments...)>(found)(arguments...));
}

// Makes a device the calling thread's current one, for a while. cudaSetDevice() would leave a
// context behind on the caller's device, where there may be none: going back by it makes one. The
// driver's stack gives back what was current, be it nothing.
class CurrentDevice {
  int device_;
  bool pushed_ = false;

 public:
  explicit CurrentDevice(int device) : device_(device) {
    int before = 0;
    check(cudaGetDevice(&before), "cudaGetDevice", device);
    if (before == device) return;
    CUcontext context = nullptr;
    check(driver("cuDevicePrimaryCtxRetain", &context, device), "cuDevicePrimaryCtxRetain", device);
    const cudaError_t error = driver("cuCtxPushCurrent", context);
    pushed_ = error == cudaSuccess;
    if (!pushed_) driver("cuDevicePrimaryCtxRelease", device);
    check(error, "cuCtxPushCurrent", device);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  ~CurrentDevice() {
    if (!pushed_) return;
    CUcontext context;
    driver("cuCtxPopCurrent", &context);  // what fails here is told by nobody
    driver("cuDevicePrimaryCtxRelease", device_);
  }
};

// Whether numbers are as the kernels read them.
bool in_one_piece(const DeviceNumbers& x, int64_t n) {
  const bool wide = x.kind == DeviceNumbers::int64 || x.kind == DeviceNumbers::float64;
  return wide && (x.columns == 1 || x.column == 1) && (n <= x.columns || x.row == x.columns);
}

// The problem's small arrays that are in host memory, or on the device and not as the kernels read
// them; there each number has 8 bytes. f(pointer, how many, what is on the device).
template <class P, class F> void for_arrays_to_make(P& p, const DeviceOptions& given, F f) {
  const Shape& s = p.shape;
  const OnDevice& there = p.on_device;
  auto each = [&](auto& data, bool on_device, const DeviceNumbers& numbers, int64_t n) {
    const bool bounded = &numbers == &given.sinks;
    const bool made = numbers.data && (bounded || !in_one_piece(numbers, n));
    if (data && (!on_device || made)) f(data, n, numbers);
  };
  const int64_t slopes = p.score.slopes_batch ? s.batch * s.heads : s.heads;
  each(p.lengths.queries, there.queries, given.q_lengths, s.batch);
  each(p.lengths.keys, there.keys, given.kv_lengths, s.batch);
  each(p.lengths.q_offset, there.q_offset, given.q_offset, s.batch);
  each(p.score.slopes, there.slopes, given.alibi_slopes, slopes);
  each(p.score.sinks, there.sinks, given.sinks, s.heads);
  each(p.dropout.device_seed, true, given.seed, 1);
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

int64_t made_bytes(const Problem& p, const DeviceOptions& given) {
  int64_t bytes = 0;
  for_arrays_to_make(p, given, [&](auto*, int64_t n, const auto&) { bytes += 8 * n; });
  return bytes;
}

// The problem, whose every pointer is of the device and to what the kernels read: those arrays are
// made at `next`, which moves on.
Problem on_device(Problem p, const DeviceOptions& given, char*& next, cudaStream_t stream,
                  int device) {
  for_arrays_to_make(p, given, [&](auto& data, int64_t n, const DeviceNumbers& numbers) {
    // Sinks join a sum as they are.
    const double most = &numbers == &given.sinks ? largest_sink(p) : HUGE_VAL;
    check(numbers.data ? cuda::widen(numbers, n, most, next, stream)
                       : cuda::upload(data, n, next, stream),
          "the copy of lengths, slopes or sinks", device);
    data = reinterpret_cast<std::remove_reference_t<decltype(data)>>(next);
    next += 8 * n;
  });
  return p;
}

std::string kernel_words(const char* kernel, const Problem& p) {
  return std::string("the kernel ") + kernel + " (" + name(p.dtype) + ")";
}

// Bytes of a kernel's own workspace, after which numbers of 8 bytes may stand.
template <class Kernel> int64_t own_bytes(const Kernel* kernel, const Problem& p) {
  return kernel ? (kernel->workspace(p) + 7) / 8 * 8 : 0;
}

}  // namespace

bool built_with_cuda() { return true; }

std::string why_no_cuda() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error) cudaGetLastError();
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
  if (best >= cuda::least_capability) return {};
  return "the kernels need a device of sm_" + std::to_string(cuda::least_capability) +
         " or newer; the best one here is of sm_" + std::to_string(best);
}

std::vector<std::string> cuda_machine_code() {
  return {std::begin(cuda::machine_code), std::end(cuda::machine_code)};
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

int64_t device_workspace(const Problem& p, const DeviceOptions& given) {
  int64_t bytes = made_bytes(p, given);
  if (p.algorithm == Algorithm::flash) {
    bytes += own_bytes(first_for(p, cuda::all_flash_kernels), p);
  } else if (__builtin_add_overflow(bytes, scores_bytes(p), &bytes)) {
    refuse("scores_memory", name(p.algorithm));
  }
  return bytes;
}

void forward_on_device(const Problem& problem, int device, void* stream, void* workspace,
                       const DeviceOptions& given) {
  const bool flash = problem.algorithm == Algorithm::flash;
  const cuda::FlashKernel* kernel = flash ? first_for(problem, cuda::all_flash_kernels) : nullptr;
  const cuda::Kernels* ladder = flash ? nullptr : ladder_for(problem);
  if (!kernel && !ladder) refuse_problem(problem, name(problem.algorithm));

  const CurrentDevice current(device);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  char* next = static_cast<char*>(workspace) + own_bytes(kernel, problem);
  const Problem p = on_device(problem, given, next, on, device);
  check(kernel ? kernel->launch(p, workspace, on) : ladder->materialised(p, next, on),
        kernel_words(kernel ? kernel->name : "materialised", p), device);
}

int64_t backward_device_workspace(const Problem& p, const DeviceOptions& given) {
  return own_bytes(first_for(p, cuda::all_backward_kernels), p) + made_bytes(p, given);
}

void backward_on_device(const Problem& problem, int device, void* stream, void* workspace,
                        const DeviceOptions& given) {
  const cuda::BackwardKernel* kernel = first_for(problem, cuda::all_backward_kernels);
  if (!kernel) refuse_problem(problem, "backward");

  const CurrentDevice current(device);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  char* next = static_cast<char*>(workspace) + own_bytes(kernel, problem);
  const Problem p = on_device(problem, given, next, on, device);
  check(kernel->launch(p, workspace, on), kernel_words(kernel->name, p), device);
}

void* allocate_on_device(int64_t bytes, int device, void* stream) {
  const CurrentDevice current(device);
  void* memory = nullptr;
  check(cudaMallocAsync(&memory, size_t(bytes), static_cast<cudaStream_t>(stream)),
        "the allocation of " + std::to_string(bytes) + " bytes", device);
  return memory;
}

// Where CUDA has ended already, as at the end of a process, there is nothing to give back.
void free_on_device(void* memory, int device, void* stream, bool settle) noexcept {
  try {
    const CurrentDevice current(device);
    if (settle) check(cudaDeviceSynchronize(), "cudaDeviceSynchronize", device);
    check(cudaFreeAsync(memory, static_cast<cudaStream_t>(stream)), "cudaFreeAsync", device);
  } catch (const RuntimeError&) {
  }
}

void let_wait(void* waiting, void* stream, int device) {
  if (waiting == stream) return;
  const CurrentDevice current(device);
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate", device);
  cudaError_t error = cudaEventRecord(event, static_cast<cudaStream_t>(stream));
  if (!error) error = cudaStreamWaitEvent(static_cast<cudaStream_t>(waiting), event, 0);
  cudaEventDestroy(event);  // once it has been reached
  check(error, "the order of two streams", device);
}

int device_of(void* stream) {
  int device = 0;
  check(cudaStreamGetDevice(static_cast<cudaStream_t>(stream), &device), "cudaStreamGetDevice", 0);
  return device;
}

void fetch(const DeviceNumbers& numbers, int64_t n, void* to, int device, void* stream) {
  if (n == 0) return;
  const CurrentDevice current(device);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  void* there = allocate_on_device(8 * n, device, stream);
  cudaError_t error = cuda::widen(numbers, n, HUGE_VAL, there, on);
  if (!error) error = cudaMemcpyAsync(to, there, size_t(8 * n), cudaMemcpyDeviceToHost, on);
  free_on_device(there, device, stream, false);
  if (!error) error = cudaStreamSynchronize(on);
  check(error, "the copy of lengths, slopes or sinks", device);
}

}  // namespace fanano
