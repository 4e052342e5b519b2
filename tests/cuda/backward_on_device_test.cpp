// The host's side of the gradients (cuda/attention.cpp), as forward_on_device_test.cpp has it for
// attention itself: where the small arrays go, which device and stream a launch is for, and what is
// thrown.
#include "cuda.hpp"
#include "device_gradients.hpp"
#include "errors.hpp"
#include "machine.hpp"

using namespace attention_case;

namespace {

// A case on the device whose small arrays are the host's, as the core gives them.
template <class T> struct HostArrays : DeviceGradients<T> {
  using DeviceGradients<T>::p;
  std::vector<int64_t> queries, keys, offsets;

  HostArrays(const Case& c, Dtype dtype)
      : DeviceGradients<T>(c, dtype, {.dlse = true}), queries(c.queries), keys(c.keys),
        offsets(c.offsets) {
    p.lengths = {queries.data(), keys.data(), offsets.data()};
    p.on_device.sinks = true;
  }
  void run(int device = 0, void* stream = nullptr) {
    device::Buffer<char> workspace(size_t(backward_device_workspace(p)));
    emulator::take_calls();
    backward_on_device(p, device, stream, workspace.data());
    for (auto* numbers : {&queries, &keys, &offsets})  // they are the caller's again
      for (int64_t& n : *numbers) n = -1;
  }
};

Case lengths() {
  Case c{{3, 2, 1, 20, 37, 8, 5}, {-1, 0}};
  c.queries = {20, 0, 7}, c.keys = {37, 33, 5}, c.offsets = {17, 0, -2}, c.sinks = true;
  return c;
}

}  // namespace

TEST(lengths_and_offsets_are_taken_from_the_host) {
  HostArrays<bfloat16> problem(lengths(), Dtype::bfloat16);
  problem.run();
  problem.judge("from the host");
}

TEST(the_workspace_has_what_stands_in_host_memory_and_a_few_numbers_of_each_row) {
  HostArrays<float16> problem(lengths(), Dtype::float16);
  const int64_t rows = 3 * 2 * 20;
  CHECK(backward_device_workspace(problem.p) == 12 * rows + 8 * 9);
  problem.p.lengths.keys = nullptr, problem.p.shape.queries = 21;  // in whole numbers of 8 bytes
  CHECK(backward_device_workspace(problem.p) == 12 * (rows + 6) + 8 * 6);
  problem.p.dtype = Dtype::float64, problem.p.on_device.sinks = false;
  CHECK(backward_device_workspace(problem.p) == 24 * (rows + 6) + 8 * (6 + 2));
}

TEST(the_device_and_the_stream) {
  const Machine machine({.devices = 3});
  device::check(cudaSetDevice(1));
  int there = 0, launches = 0, current = -1;
  HostArrays<float> problem(lengths(), Dtype::float32);
  device::Buffer<char> workspace(size_t(backward_device_workspace(problem.p)));
  emulator::take_calls();
  backward_on_device(problem.p, 2, &there, workspace.data());
  for (const emulator::Call& call : emulator::take_calls()) {
    for (const char* waits : {"Synchronize", "Memcpy", "Malloc"}) CHECK(!has(call.what, waits));
    if (!has(call.what, "_kernel")) continue;
    CHECK(call.stream == &there && call.device == 2);
    ++launches;
  }
  CHECK(launches == 3 + 5);  // of uploads; of rows, dq, dk, dv and dsinks
  device::check(cudaGetDevice(&current));
  CHECK(current == 1);
  problem.judge("on device 2");
}

TEST(an_error_of_the_callers_is_not_told_as_ours) {
  const Machine machine({.devices = 2});
  HostArrays<float> problem(lengths(), Dtype::float32);
  CHECK(cudaSetDevice(7) == cudaErrorInvalidDevice);  // the caller knows, and goes on
  problem.run();
  CHECK(why_no_cuda().empty());
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);  // and may ask for it later
  problem.judge("after an error of the caller's");
}

// Where a grid has 2 blocks at most: of the general kernels, and of sm_80's.
TEST(one_launch_may_be_several) {
  for (Dtype dtype : {Dtype::float64, Dtype::float16})
    device::with_type(dtype, [&]<class T>() {
      const Machine machine({.most_blocks = 2});
      Case c{{2, 3, 1, 40, 70, 64, 64}, {-1, 3}};
      c.sinks = true;
      HostArrays<T> problem(c, dtype);
      problem.run();
      int launches = 0;
      for (const emulator::Call& call : emulator::take_calls())
        launches += has(call.what, "_kernel");
      CHECK(launches >= 3 + 2 + 2);  // of dq, of dk and dv, of sinks
      problem.judge("by several launches");
    });
}

TEST(what_fails_says_what_and_where_and_is_over_then) {
  const Machine machine;
  HostArrays<float> problem(lengths(), Dtype::float32);
  emulator::machine().launch_error = cudaErrorInvalidConfiguration;
  CHECK_THROWS(RuntimeError,
               "the copy of lengths, slopes or sinks failed on CUDA device 0: ", problem.run());
  problem.p.lengths = {};
  CHECK_THROWS(
      RuntimeError,
      "the kernel backward_plain_float32 (float32) failed on CUDA device 0: ", problem.run());
  emulator::machine().launch_error = 0;
  CHECK(cudaGetLastError() == cudaSuccess);  // it has been told
  HostArrays<float> next(lengths(), Dtype::float32);
  next.run();
  next.judge("after errors");
}

TEST(what_no_kernel_takes_is_told) {
  HostArrays<float16> problem(lengths(), Dtype::float16);
  problem.p.dtype = Dtype::boolean;
  CHECK_THROWS(NotImplementedError,
               "no CUDA kernel of this build takes the problem: backward, batch 3, heads 2 over 1",
               problem.run());
}
