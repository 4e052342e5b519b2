// The host's side of the CUDA kernels (cuda/attention.cpp) on the emulator's runtime: what it says
// of a machine, where the small arrays go, which device and stream a launch is for, and what it
// throws.
#include "../cpp/check.hpp"
#include "cuda.hpp"
#include "device_problem.hpp"
#include "emulator/runtime.hpp"
#include "errors.hpp"

using namespace attention_case;

namespace {

// A machine for one test; the next one finds the usual one.
class Machine {
 public:
  explicit Machine(emulator::Machine m = {}) { emulator::machine() = m, emulator::take_calls(); }
  ~Machine() {
    cudaSetDevice(0);
    emulator::machine() = {}, emulator::take_failure(), cudaGetLastError();
  }
};

// A case on the device whose small arrays are the host's, as the core gives them.
template <class T> struct HostArrays : DeviceProblem<T> {
  using DeviceProblem<T>::p;
  std::vector<int64_t> queries, keys, offsets;

  HostArrays(const Case& c, Dtype dtype, Algorithm algorithm)
      : DeviceProblem<T>(c, dtype), queries(c.queries), keys(c.keys), offsets(c.offsets) {
    auto data = [](auto& v) { return v.empty() ? nullptr : v.data(); };
    p.algorithm = algorithm;
    p.lengths = {data(queries), data(keys), data(offsets)};
  }
  void forward(int device = 0, void* stream = nullptr) {
    device::Buffer<char> workspace(size_t(device_workspace(p)));
    emulator::take_calls();
    forward_on_device(p, device, stream, workspace.data());
    // On return they are the caller's again.
    for (auto* numbers : {&queries, &keys, &offsets})
      for (int64_t& n : *numbers) n = -1;
  }
};

Case lengths() {
  Case c{{3, 2, 1, 20, 70, 64, 64}, {-1, 0}};
  c.queries = {20, 0, 7}, c.keys = {70, 67, 5}, c.offsets = {50, 0, -2};
  return c;
}

HostArrays<float16> small(int64_t dim = 64) {
  return {{{1, 1, 1, 4, 4, dim, dim}}, Dtype::float16, Algorithm::flash};
}

std::string why_no_cuda_on(emulator::Machine m) {
  const Machine machine(m);
  const std::string why = why_no_cuda();
  CHECK(cudaGetLastError() == cudaSuccess);  // what was asked leaves nothing behind
  return why;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST(lengths_and_offsets_are_taken_from_the_host) {
  for (Algorithm algorithm : {Algorithm::naive, Algorithm::safe, Algorithm::flash}) {
    HostArrays<bfloat16> problem(lengths(), Dtype::bfloat16, algorithm);
    problem.forward();
    problem.judge(name(algorithm));
  }
  Case c = lengths();
  c.queries.clear();  // those that are there stand together
  HostArrays<float> problem(c, Dtype::float32, Algorithm::online);
  problem.forward();
  problem.judge("online");
}

TEST(the_workspace_has_what_stands_in_host_memory_and_the_scores) {
  const double numbers[12] = {};
  HostArrays<float16> problem(lengths(), Dtype::float16, Algorithm::flash);
  Problem& p = problem.p;
  CHECK(device_workspace(p) == 8 * 9);
  p.lengths.keys = nullptr, p.score.sinks = numbers;
  CHECK(device_workspace(p) == 8 * (6 + 2));
  p.score.slopes = numbers;
  CHECK(device_workspace(p) == 8 * (6 + 4));
  p.score.slopes_batch = 2;
  CHECK(device_workspace(p) == 8 * (6 + 2 + 3 * 2));
  p.algorithm = Algorithm::safe;
  CHECK(device_workspace(p) == 8 * 14 + 4 * 3 * 2 * 20 * 70);
  p.dtype = Dtype::float64;
  CHECK(device_workspace(p) == 8 * 14 + 8 * 3 * 2 * 20 * 70);
  p.shape.keys = int64_t(1) << 60;
  CHECK_THROWS(ValueError, "algorithm='safe' would materialise more scores", device_workspace(p));
  p.shape = {1, 1, 1, 1, (int64_t(1) << 60) - 1, 64, 64}, p.score.slopes_batch = 1;
  CHECK_THROWS(ValueError, "use algorithm='flash'", device_workspace(p));
}

TEST(an_upload_of_many_numbers) {
  for (size_t n : {1, 480, 481, 1000}) {
    std::vector<int64_t> numbers(n);
    for (size_t i = 0; i < n; ++i) numbers[i] = int64_t(i * i) - 7;
    device::Buffer<int64_t> there(n);
    device::check(cuda::upload(numbers.data(), int64_t(n), there.data(), nullptr));
    CHECK(there.values() == numbers);
  }
}

TEST(the_device_is_the_callers_again) {
  const Machine machine({.devices = 3});
  auto current = [] {
    int device = -1;
    device::check(cudaGetDevice(&device));
    return device;
  };
  device::check(cudaSetDevice(1));
  HostArrays<bfloat16> problem(lengths(), Dtype::bfloat16, Algorithm::safe);
  problem.forward(2);
  CHECK(current() == 1);
  int launches = 0;
  for (const emulator::Call& call : emulator::take_calls())
    if (has(call.what, "kernel")) CHECK(call.device == 2), ++launches;
  CHECK(launches == 3 + 3);  // of uploads; of scores, probabilities and products
  problem.judge("on device 2");

  small().forward(1);  // where it is: there is nothing to set
  for (const emulator::Call& call : emulator::take_calls()) CHECK(call.what != "cudaSetDevice");

  CHECK_THROWS(RuntimeError, "cudaSetDevice failed on CUDA device 3: ", small().forward(3));
  CHECK(cudaGetLastError() == cudaSuccess);  // it has been told
  CHECK(current() == 1);
  emulator::machine().launch_error = cudaErrorLaunchOutOfResources;
  CHECK_THROWS(RuntimeError, "on CUDA device 0", small().forward(0));
  CHECK(current() == 1);
}

TEST(all_is_launched_on_the_stream_and_nothing_waits) {
  const Machine machine({.devices = 2});
  int there = 0;
  for (Algorithm algorithm : {Algorithm::flash, Algorithm::safe}) {
    HostArrays<bfloat16> problem(lengths(), Dtype::bfloat16, algorithm);
    device::Buffer<char> workspace(size_t(device_workspace(problem.p)));
    emulator::take_calls();
    forward_on_device(problem.p, 1, &there, workspace.data());
    int launches = 0;
    for (const emulator::Call& call : emulator::take_calls()) {
      if (call.what == "cudaSetDevice") continue;
      CHECK(has(call.what, "_kernel"));  // no function but launches
      CHECK(call.stream == &there);
      ++launches;
    }
    CHECK(launches == 3 + (algorithm == Algorithm::flash ? 1 : 3));
  }
}

// Where a grid can have too few blocks.
TEST(one_launch_may_be_several) {
  for (Algorithm algorithm : {Algorithm::flash, Algorithm::safe})
    for (int64_t dim : {64, 130}) {  // by tensor cores and without
      Case c{{3, 2, 1, 34, 9, dim, dim}, {-1, 3}};
      const Machine machine({.most_blocks = 5});
      HostArrays<float16> problem(c, Dtype::float16, algorithm);
      problem.forward();
      size_t launches = 0;
      for (const emulator::Call& call : emulator::take_calls())
        launches += has(call.what, "kernel");
      CHECK(launches > (algorithm == Algorithm::flash ? 1 : 3));
      problem.judge("by several launches");
    }
}

TEST(what_no_kernel_takes_is_told) {
  emulator::take_calls();
  HostArrays<float16> problem = small();
  problem.p.algorithm = Algorithm::online, problem.p.dropout.p = 0.5;
  CHECK_THROWS(NotImplementedError,
               "no CUDA kernel of this build takes the problem: online, batch 1, heads 1 over 1, "
               "queries 4, keys 4, dim 64, value dim 64, float16; dropout",
               problem.forward());
  for (const emulator::Call& call : emulator::take_calls())
    CHECK(!has(call.what, "kernel") && call.what != "cudaSetDevice");
}

TEST(what_fails_says_what_and_where_and_is_over_then) {
  const Machine machine;
  HostArrays<float16> problem(lengths(), Dtype::float16, Algorithm::flash);
  emulator::machine().launch_error = cudaErrorInvalidConfiguration;
  CHECK_THROWS(RuntimeError,
               "the copy of lengths, slopes or sinks failed on CUDA device 0: ", problem.forward());
  CHECK_THROWS(RuntimeError, " (float16) failed on CUDA device 0: ", small().forward());
  HostArrays<float> ladder({{1, 1, 1, 4, 4, 8, 8}}, Dtype::float32, Algorithm::naive);
  CHECK_THROWS(RuntimeError,
               "the kernel materialised (float32) failed on CUDA device 0: ", ladder.forward());
  emulator::machine().launch_error = 0;
  HostArrays<float16> next = small();
  next.forward();
  next.judge("after errors");
}

TEST(why_a_machine_cannot) {
  CHECK(built_with_cuda());
  CHECK(why_no_cuda_on({}) == "");
  CHECK(why_no_cuda_on({.devices = 2, .capability = 90}) == "");
  CHECK(why_no_cuda_on({.driver = 0}) == "this machine has no CUDA driver");
  CHECK(why_no_cuda_on({.driver = 12040}) ==
        "the driver of this machine is too old: it is for CUDA 12.4, this build needs 13.0");
  CHECK(why_no_cuda_on({.devices = 0}) == "the driver sees no CUDA device");
  CHECK(has(why_no_cuda_on({.starts = false}), "one that was forked after its parent"));
  CHECK(why_no_cuda_on({.capability = 75}) ==
        "the kernels need a device of sm_80 or newer; the best one here is of sm_75");
}

TEST(the_rows_of_the_table) {
  int flash = 0, ladder = 0;
  for (const CudaKernel& row : cuda_kernels()) {
    CHECK(row.architecture == "sm_80");
    flash += row.name.starts_with("flash_"), ladder += row.name == "materialised";
  }
  CHECK(flash == int(std::size(cuda::all_flash_kernels)) && flash >= 2);
  CHECK(ladder == int(std::size(cuda::all_kernels)) && ladder >= 3);
}
