// A stand-in for the part of the CUDA runtime that our host code uses: linked in place of cudart,
// it runs the very objects that nvcc made. A launch takes the kernel's PTX out of the program
// itself, where nvcc has put it (cuda.cmake sees to it that it is there, and not compressed).
//
// What a kernel does wrong is a failed launch: cudaDeviceSynchronize() returns 719, as on a GPU,
// and the words are on stderr. Copying to the host what nothing has written fails as well.
// FANANO_EMULATOR_ORDER=backward|random changes the order of warps. FANANO_EMULATOR_LAUNCHES=FILE
// writes which kernels were launched with how much dynamic shared memory, for the static report.
#include "runtime.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "block.hpp"
#include "fault.hpp"
#include "parser.hpp"

namespace emulator {
namespace {

enum Error {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  initialization_error = 3,
  insufficient_driver = 35,
  invalid_kernel = 98,
  no_device = 100,
  invalid_device = 101,
  invalid_context = 201,
  launch_failure = 719
};
constexpr int runtime_version = 13000;
enum Attribute { most_blocks = 5, capability_major = 75, capability_minor = 76 };

struct Wrapper {  // what nvcc registers: a fat binary, which holds PTX and machine code
  uint32_t magic, version;
  const char* data;
};
struct FatHeader {
  uint32_t magic;
  uint16_t version, header_bytes;
  uint64_t bytes;
};
struct FatEntry {
  uint16_t kind, flags;
  uint32_t header_bytes;
  uint64_t bytes;
};
constexpr uint32_t wrapper_magic = 0x466243b1, fat_magic = 0xba55ed50;
constexpr uint16_t is_ptx = 1;

struct Module {
  std::string ptx;
  Program program;
  bool parsed = false;
};
struct Function {
  Module* module = nullptr;
  std::string name;
  size_t dynamic_limit = 48 * 1024;  // until cudaFuncSetAttribute raises it
};

// Registrations come from constructors of other files, so that these are made on first use.
std::map<const void*, Function>& functions() {
  static std::map<const void*, Function> all;
  return all;
}

struct Configuration {
  Dim grid, threads;
  size_t dynamic_bytes = 0;
  void* stream = nullptr;
} configuration;

std::vector<Call>& calls = *new std::vector<Call>;  // never destroyed: memory may be freed at exit
thread_local int current_device = 0;
thread_local std::vector<int> devices_below;  // on the driver's stack of contexts
std::set<int>& devices_in_use = *new std::set<int>;
void record(const std::string& what, void* stream = nullptr) {
  calls.push_back({what, current_device, stream});
}

int last_error = success;
std::string failure;

int fail(int error, const std::string& words) {
  std::fprintf(stderr, "emulator: %s\n", words.c_str());
  failure = words;
  return last_error = error;
}

std::string ptx_of(const char* data) {
  FatHeader header;
  std::memcpy(&header, data, sizeof header);
  if (header.magic != fat_magic) return {};
  const char* end = data + header.header_bytes + header.bytes;
  for (const char* at = data + header.header_bytes; at + sizeof(FatEntry) <= end;) {
    FatEntry entry;
    std::memcpy(&entry, at, sizeof entry);
    std::string_view text(at + entry.header_bytes, entry.bytes);
    if (entry.kind == is_ptx) return std::string(text.substr(0, text.find('\0')));
    at += entry.header_bytes + entry.bytes;
  }
  return {};
}

Order order() {
  const char* name = std::getenv("FANANO_EMULATOR_ORDER");
  if (!name || !std::strcmp(name, "forward")) return Order::forward;
  if (!std::strcmp(name, "backward")) return Order::backward;
  if (!std::strcmp(name, "random")) return Order::random;
  throw Fault(std::string("FANANO_EMULATOR_ORDER is ") + name);
}

void note_launch(const std::string& name, size_t dynamic_bytes) {
  static std::set<std::string> noted;
  const char* path = std::getenv("FANANO_EMULATOR_LAUNCHES");
  std::string line = name + " " + std::to_string(dynamic_bytes) + "\n";
  if (path && noted.insert(line).second)
    std::ofstream(path, noted.size() == 1 ? std::ios::trunc : std::ios::app) << line;
}

int launch(const void* host, Dim grid, Dim threads, void** arguments, size_t dynamic_bytes,
           void* stream) {
  auto found = functions().find(host);
  if (found == functions().end()) return fail(invalid_kernel, "no such kernel");
  Function& function = found->second;
  record(function.name, stream);
  devices_in_use.insert(current_device);
  if (int error = machine().launch_error) return fail(error, "as the test wants it");
  Module& module = *function.module;
  if (grid.x == 0 || grid.x > unsigned(machine().most_blocks))
    return fail(invalid_value, "a grid of so many blocks, or of none, for " + function.name);
  if (dynamic_bytes > function.dynamic_limit)
    return fail(invalid_value, "more dynamic shared memory than cudaFuncSetAttribute allowed for " +
                                   function.name);
  note_launch(function.name, dynamic_bytes);
  try {
    if (module.ptx.empty()) throw Fault("no PTX in the program for " + function.name);
    if (!module.parsed) module.program = parse(module.ptx), module.parsed = true;
    const Kernel& kernel = module.program.kernels.at(function.name);
    Launch call{kernel,  grid, threads, dynamic_bytes, std::vector<char>(kernel.parameter_bytes),
                order(), 1};
    for (size_t p = 0; p < kernel.parameters.size(); ++p)
      std::memcpy(call.parameters.data() + kernel.parameters[p].offset, arguments[p],
                  kernel.parameters[p].bytes);
    run(call);
  } catch (const std::exception& error) {
    return fail(launch_failure, error.what());
  }
  return success;
}

}  // namespace

std::string take_failure() { return std::exchange(failure, {}); }

Machine& machine() {
  static Machine it;
  return it;
}

std::set<int> take_devices_in_use() { return std::exchange(devices_in_use, {}); }

std::vector<Call> take_calls() { return std::exchange(calls, {}); }

}  // namespace emulator

using namespace emulator;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  Wrapper w;
  std::memcpy(&w, wrapper, sizeof w);
  Module* module = new Module;
  if (w.magic == wrapper_magic) module->ptx = ptx_of(w.data);
  return reinterpret_cast<void**>(module);
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void** handle) { delete reinterpret_cast<Module*>(handle); }
void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name, int, void*,
                            void*, void*, void*, int*) {
  functions()[host] = {reinterpret_cast<Module*>(handle), name};
}

unsigned __cudaPushCallConfiguration(Dim grid, Dim threads, size_t dynamic_bytes, void* stream) {
  configuration = {grid, threads, dynamic_bytes, stream};
  return 0;
}
int __cudaPopCallConfiguration(Dim* grid, Dim* threads, size_t* dynamic_bytes, void* stream) {
  *grid = configuration.grid, *threads = configuration.threads;
  *dynamic_bytes = configuration.dynamic_bytes;
  std::memcpy(stream, &configuration.stream, sizeof(void*));
  return success;
}
int __cudaGetKernel(const void** kernel, const void* host) { return *kernel = host, success; }
int cudaLaunchKernel(const void* host, Dim grid, Dim threads, void** arguments,
                     size_t dynamic_bytes, void* stream) {
  return launch(host, grid, threads, arguments, dynamic_bytes, stream);
}
int __cudaLaunchKernel(const void* host, Dim grid, Dim threads, void** arguments,
                       size_t dynamic_bytes, void* stream) {
  return launch(host, grid, threads, arguments, dynamic_bytes, stream);
}

int cudaDriverGetVersion(int* version) { return *version = machine().driver, success; }
int cudaRuntimeGetVersion(int* version) { return *version = runtime_version, success; }
int cudaGetDeviceCount(int* count) {
  record("cudaGetDeviceCount");
  const Machine& m = machine();
  if (m.driver < runtime_version)
    return fail(insufficient_driver, "the driver is too old, or none");
  if (!m.starts) return fail(initialization_error, "CUDA does not start");
  if (m.devices == 0) return fail(no_device, "there is no device");
  return *count = m.devices, success;
}
int cudaDeviceGetAttribute(int* value, int attribute, int device) {
  const int capability = machine().capability;
  if (device < 0 || device >= machine().devices) return fail(invalid_device, "no such device");
  if (attribute == most_blocks) return *value = machine().most_blocks, success;
  if (attribute == capability_major) return *value = capability / 10, success;
  if (attribute == capability_minor) return *value = capability % 10, success;
  return fail(invalid_value, "an attribute that is not known");
}
int cudaGetDevice(int* device) { return *device = current_device, success; }
int cudaSetDevice(int device) {
  record("cudaSetDevice");
  if (device < 0 || device >= machine().devices) return fail(invalid_device, "no such device");
  devices_in_use.insert(device);
  return current_device = device, success;
}

// ---- the driver's ----
// A context is its device's number, plus one: the primary one, which its device has once.
static int cuDevicePrimaryCtxRetain(uintptr_t* context, int device) {
  if (device < 0 || device >= machine().devices) return invalid_device;
  devices_in_use.insert(device);
  return *context = uintptr_t(device) + 1, success;
}
static int cuDevicePrimaryCtxRelease(int) { return success; }
static int cuCtxPushCurrent(uintptr_t context) {
  devices_below.push_back(std::exchange(current_device, int(context) - 1));
  return success;
}
static int cuCtxPopCurrent(uintptr_t* context) {
  if (devices_below.empty()) return invalid_context;
  *context = uintptr_t(std::exchange(current_device, devices_below.back())) + 1;
  return devices_below.pop_back(), success;
}
int cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                     unsigned long long, void*) {
  const std::map<std::string_view, void*> known = {
      {"cuDevicePrimaryCtxRetain", reinterpret_cast<void*>(cuDevicePrimaryCtxRetain)},
      {"cuDevicePrimaryCtxRelease", reinterpret_cast<void*>(cuDevicePrimaryCtxRelease)},
      {"cuCtxPushCurrent", reinterpret_cast<void*>(cuCtxPushCurrent)},
      {"cuCtxPopCurrent", reinterpret_cast<void*>(cuCtxPopCurrent)}};
  const auto found = known.find(name);
  return *function = found == known.end() ? nullptr : found->second, success;
}

int cudaMalloc(void** address, size_t bytes) {
  record("cudaMalloc");
  return *address = device_memory().allocate(bytes), success;
}
int cudaFree(void* address) {
  record("cudaFree");
  if (address && !device_memory().free(address)) return fail(invalid_value, "bad cudaFree");
  return success;
}
int cudaMemcpy(void* to, const void* from, size_t bytes, int direction) {
  record("cudaMemcpy");
  if (direction == 1 && !device_memory().copy_in(to, from, bytes))
    return fail(invalid_value, "a copy to what is no device memory");
  if (direction == 2 && !device_memory().copy_out(to, from, bytes))
    return fail(invalid_value, "a copy of device memory that nothing has written, or of none");
  if (direction != 1 && direction != 2) return fail(invalid_value, "an unknown kind of copy");
  return success;
}

// Everything happens at once, in the order of the calls: streams and events are names.
int cudaMallocAsync(void** address, size_t bytes, void* stream) {
  record("cudaMallocAsync", stream);
  if (bytes > machine().memory) return fail(out_of_memory, "there is less memory than that");
  return *address = device_memory().allocate(bytes), success;
}
int cudaFreeAsync(void* address, void* stream) {
  record("cudaFreeAsync", stream);
  if (!device_memory().free(address)) return fail(invalid_value, "bad cudaFreeAsync");
  return success;
}
int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int direction, void* stream) {
  record("cudaMemcpyAsync", stream);
  return cudaMemcpy(to, from, bytes, direction);
}
int cudaStreamSynchronize(void* stream) {
  record("cudaStreamSynchronize", stream);
  return std::exchange(last_error, success);
}
int cudaStreamGetDevice(void*, int* device) {
  return *device = machine().device_of_streams, success;
}
int cudaEventCreateWithFlags(void** event, unsigned) { return *event = &machine(), success; }
int cudaEventRecord(void*, void* stream) { return record("cudaEventRecord", stream), success; }
int cudaStreamWaitEvent(void* stream, void*, unsigned) {
  return record("cudaStreamWaitEvent", stream), success;
}
int cudaEventDestroy(void*) { return success; }

int cudaGetDeviceProperties(char* name, int) {  // the first of them is the name
  return std::strcpy(name, "the emulator"), success;
}
int cudaGetDeviceProperties_v2(char* name, int device) {  // CUDA 12's
  return cudaGetDeviceProperties(name, device);
}
// cudaFuncAttributeMaxDynamicSharedMemorySize is 8.
int cudaFuncSetAttribute(const void* host, int attribute, int value) {
  auto found = functions().find(host);
  if (found == functions().end() || attribute != 8 || value > 227 * 1024)
    return fail(invalid_value, "bad cudaFuncSetAttribute");
  return found->second.dynamic_limit = size_t(value), success;
}
int cudaGetLastError() { return std::exchange(last_error, success); }
int cudaPeekAtLastError() { return last_error; }
int cudaDeviceSynchronize() {
  record("cudaDeviceSynchronize");
  return std::exchange(last_error, success);
}
const char* cudaGetErrorString(int error) {
  return error ? "see what the emulator said" : "no error";
}

}  // extern "C"
