// Kernels that are wrong on purpose, through nvcc and the stand-in runtime: what is reported names
// the lines of this file.
#include "../cpp/check.hpp"
#include "device.hpp"
#include "emulator/runtime.hpp"

using device::Buffer;

namespace {

constexpr int threads = 64, load_line = __LINE__ + 7;

template <bool barrier> __global__ void reversed(const int* in, int* out) {
  __shared__ int tile[threads];
  int t = threadIdx.x;
  tile[t] = in[t];
  if (barrier) __syncthreads();
  out[t] = tile[threads - 1 - t];
}

__global__ void one_too_many(const int* in, int* out) {
  for (int j = threadIdx.x; j <= threads; j += threads) out[j] = in[0];
}

__global__ void misaligned(int* out) {
  *reinterpret_cast<int2*>(out + 1 + 2 * threadIdx.x) = {1, 2};
}

__global__ void not_all_at_the_barrier(int* out) {
  if (threadIdx.x % 2) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void one_left_out(int* out) {
  if (threadIdx.x != 5) out[threadIdx.x] = 1;
}

__global__ void many_write_one(int* out) { out[threadIdx.x / 2] = threadIdx.x; }

__global__ void reads_what_is_not_there(int* out) {
  __shared__ int tile[threads];
  if (threadIdx.x > 0) tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

std::string here(int line) { return "wrong_kernels_test.cpp:" + std::to_string(line); }

// The words of what just ran; it must have failed.
std::string failure() {
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  return emulator::take_failure();
}

bool has(const std::string& text, const std::string& words) {
  bool found = text.find(words) != std::string::npos;
  return check::report(found, __FILE__, __LINE__, "no '" + words + "' in: " + text);
}

}  // namespace

TEST(a_missing_barrier) {
  Buffer<int> in(std::vector<int>(threads, 7)), out(size_t{threads});
  reversed<true><<<1, threads>>>(in.data(), out.data());
  device::finish();
  CHECK(out.values()[0] == 7);
  reversed<false><<<1, threads>>>(in.data(), out.data());
  std::string words = failure();
  // The first warp reads what the second has not written yet; or, where it has, a race.
  CHECK(has(words, here(load_line)));
  setenv("FANANO_EMULATOR_ORDER", "backward", 1);
  reversed<false><<<1, threads>>>(in.data(), out.data());
  CHECK(has(failure(), here(load_line)));
  unsetenv("FANANO_EMULATOR_ORDER");
}

// The same with a tile that was full before: a race, and both its lines.
__global__ void twice(int* out) {
  __shared__ int tile[threads];
  int t = threadIdx.x;
  tile[t] = t;
  __syncthreads();
  int other = tile[threads - 1 - t];
  tile[t] = other;
  out[t] = other;
}
constexpr int reading = __LINE__ - 4, writing = __LINE__ - 3;

TEST(a_race_names_both_lines) {
  Buffer<int> out(size_t{threads});
  twice<<<1, threads>>>(out.data());
  std::string words = failure();
  CHECK(has(words, "race: "));
  CHECK(has(words, here(reading)));
  CHECK(has(words, here(writing)));
}

TEST(bad_accesses) {
  Buffer<int> in(std::vector<int>{7}), out(size_t{threads});
  one_too_many<<<1, threads>>>(in.data(), out.data());
  CHECK(has(failure(), "out of bounds: thread 0"));
  misaligned<<<1, 32>>>(out.data());
  CHECK(has(failure(), "misaligned: thread 0"));
  reads_what_is_not_there<<<1, threads>>>(out.data());
  CHECK(has(failure(), "uninitialised: thread 0"));
  many_write_one<<<1, threads>>>(out.data());
  CHECK(has(failure(), "race: write of byte 0 of device memory"));
}

TEST(divergence) {
  Buffer<int> out(size_t{threads});
  not_all_at_the_barrier<<<1, threads>>>(out.data());
  CHECK(has(failure(), "deadlock"));
}

TEST(outputs_that_nothing_wrote) {
  Buffer<int> out(size_t{threads});
  one_left_out<<<1, threads>>>(out.data());
  device::finish();
  CHECK_THROWS(std::runtime_error, "CUDA", out.values());
  CHECK(has(emulator::take_failure(), "nothing has written"));
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
}

TEST(launches_that_no_gpu_would_take) {
  Buffer<int> out(size_t{threads});
  one_left_out<<<1, threads, 60 * 1024>>>(out.data());
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  device::check(
      cudaFuncSetAttribute(one_left_out, cudaFuncAttributeMaxDynamicSharedMemorySize, 60 * 1024));
  one_left_out<<<1, threads, 60 * 1024>>>(out.data());
  device::finish();
}
