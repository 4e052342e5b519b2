// The host's side of the CUDA kernels (cuda/attention.cpp) on the emulator's runtime: what it says
// of a machine, where the small arrays go, which device and stream a launch is for, and what it
// throws.
#include <cfloat>

#include "../cpp/check.hpp"
#include "cuda.hpp"
#include "device_problem.hpp"
#include "errors.hpp"
#include "machine.hpp"
#include "upload.hpp"

using namespace attention_case;

namespace {

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

TEST(the_workspace_has_the_states_of_split_keys) {
  Case c{{3, 4, 2, 2, 1100, 64, 33}, {-1, 0}};
  c.queries = {2, 0, 1}, c.keys = {1100, 67, 600};
  HostArrays<bfloat16> problem(c, Dtype::bfloat16, Algorithm::flash);
  CHECK(device_workspace(problem.p) == 8 * 6 + 3 * 4 * 2 * 3 * 4 * (34 + 2));
  problem.forward();
  problem.judge("decode");
  problem.p.shape.queries = 100;  // at most 16 of a sequence are decode's
  CHECK(device_workspace(problem.p) == 8 * 6 + 3 * 4 * 16 * 3 * 4 * (34 + 2));
  problem.p.lengths.queries = nullptr;
  CHECK(device_workspace(problem.p) == 8 * 3);
  problem.p.shape = {1, 1, 1, 1, 512, 64, 64};
  CHECK(device_workspace(problem.p) == 8 * 1);
  problem.p.shape = {1, 8, 8, 1, int64_t(1) << 62, 64, 64};  // more than can be addressed
  CHECK(device_workspace(problem.p) == 8 * 1 + (int64_t(1) << 62));
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

TEST(numbers_on_the_device_are_widened_there) {
  const double most = FLT_MAX / 8;
  auto check_kind = [&]<class T, class Wide>(DeviceNumbers::Kind kind, T, Wide) {
    // Rows of three, each number every second, backwards.
    std::vector<T> numbers;
    for (int i = 0; i < 40; ++i) numbers.push_back(device::narrow<T>(i * i - 300));
    const device::Buffer<T> there(numbers);
    device::Buffer<Wide> wide(12);
    const DeviceNumbers from{there.data() + 39, kind, 3, -9, -2};
    device::check(cuda::widen(from, 12, most, wide.data(), nullptr));
    const std::vector<Wide> found = wide.values();
    for (size_t i = 0; i < 12; ++i)
      CHECK(found[i] == Wide(device::widen(numbers[39 - i / 3 * 9 - i % 3 * 2])));
  };
  check_kind(DeviceNumbers::int32, int32_t(), int64_t());
  check_kind(DeviceNumbers::int64, int64_t(), int64_t());
  check_kind(DeviceNumbers::float16, float16(), double());
  check_kind(DeviceNumbers::bfloat16, bfloat16(), double());
  check_kind(DeviceNumbers::float32, float(), double());
  check_kind(DeviceNumbers::float64, double(), double());

  // More than there are threads.
  std::vector<int32_t> many(1024 * 128 + 3);
  for (size_t i = 0; i < many.size(); ++i) many[i] = int32_t(i) - 7;
  const device::Buffer<int32_t> there(many);
  device::Buffer<int64_t> wide(many.size());
  const DeviceNumbers row{there.data(), DeviceNumbers::int32, int64_t(many.size()), 0, 1};
  device::check(cuda::widen(row, int64_t(many.size()), most, wide.data(), nullptr));
  CHECK(wide.values() == std::vector<int64_t>(many.begin(), many.end()));
}

TEST(finite_numbers_are_bounded_infinities_and_nan_stay) {
  const device::Buffer<double> there(
      std::vector<double>{1e300, -1e300, INFINITY, -INFINITY, NAN, 3});
  device::Buffer<double> wide(6);
  device::check(cuda::widen({there.data(), DeviceNumbers::float64, 6, 0, 1}, 6, FLT_MAX / 8,
                            wide.data(), nullptr));
  const std::vector<double> found = wide.values();
  const double right[] = {FLT_MAX / 8, -FLT_MAX / 8, INFINITY, -INFINITY, NAN, 3};
  for (size_t i = 0; i < 6; ++i) CHECK_CLOSE(found[i], right[i], 0);
}

TEST(memory_is_taken_and_given_back_in_the_order_of_a_stream) {
  const Machine machine({.devices = 3, .memory = 1000});
  int stream = 0;
  auto called = [&](const char* what) {
    int times = 0;
    for (const emulator::Call& call : emulator::take_calls())
      if (call.what == what) CHECK(call.device == 2), ++times;
    return times;
  };
  void* memory = allocate_on_device(1000, 2, &stream);
  CHECK(called("cudaMallocAsync") == 1);
  free_on_device(memory, 2, &stream, false);
  CHECK(called("cudaDeviceSynchronize") == 0);
  memory = allocate_on_device(8, 2, &stream);
  free_on_device(memory, 2, &stream, true);
  CHECK(called("cudaDeviceSynchronize") == 1);
  CHECK_THROWS(RuntimeError, "the allocation of 1001 bytes failed on CUDA device 2: ",
               allocate_on_device(1001, 2, &stream));
  CHECK(cudaGetLastError() == cudaSuccess);
  free_on_device(memory, 2, &stream, false);  // nothing is there: it is for nobody to hear
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST(a_stream_waits_for_another) {
  const Machine machine({.devices = 3});
  int first = 0, second = 0;
  let_wait(&first, &first, 2);
  CHECK(emulator::take_calls().empty());
  let_wait(&second, &first, 2);
  std::vector<emulator::Call> order;
  for (const emulator::Call& call : emulator::take_calls())
    if (has(call.what, "Event")) CHECK(call.device == 2), order.push_back(call);
  CHECK(order.size() == 2);
  CHECK(order[0].what == "cudaEventRecord" && order[0].stream == &first);
  CHECK(order[1].what == "cudaStreamWaitEvent" && order[1].stream == &second);
}

TEST(what_is_on_the_device_is_fetched) {
  const device::Buffer<int32_t> there(std::vector<int32_t>{5, 9, -3, 9});
  int64_t found[2] = {};
  fetch({there.data(), DeviceNumbers::int32, 2, 0, 2}, 2, found, 0, nullptr);
  CHECK(found[0] == 5 && found[1] == -3);
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
  emulator::take_devices_in_use();
  problem.forward(2);
  CHECK(emulator::take_devices_in_use() == std::set{2});  // no context is made on the caller's
  CHECK(current() == 1);
  int launches = 0;
  for (const emulator::Call& call : emulator::take_calls())
    if (has(call.what, "kernel")) CHECK(call.device == 2), ++launches;
  CHECK(launches == 3 + 3);  // of uploads; of scores, probabilities and products
  problem.judge("on device 2");

  small().forward(1);  // where it is: there is nothing to set
  CHECK(current() == 1);

  CHECK_THROWS(RuntimeError,
               "cuDevicePrimaryCtxRetain failed on CUDA device 3: ", small().forward(3));
  CHECK(cudaGetLastError() == cudaSuccess);  // it has been told
  CHECK(current() == 1);
  emulator::machine().launch_error = cudaErrorLaunchOutOfResources;
  CHECK_THROWS(RuntimeError, "on CUDA device 0", small().forward(0));
  CHECK(current() == 1);
}

TEST(an_error_of_the_callers_is_not_told_as_ours) {
  const Machine machine({.devices = 2});
  CHECK(cudaSetDevice(7) == cudaErrorInvalidDevice);  // the caller knows, and goes on
  HostArrays<bfloat16> problem(lengths(), Dtype::bfloat16, Algorithm::safe);
  problem.forward(0);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);  // and may ask for it later
  problem.judge("after an error of the caller's");
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
      CHECK(has(call.what, "_kernel"));  // no function but launches
      CHECK(call.stream == &there);
      ++launches;
    }
    CHECK(launches == 3 + (algorithm == Algorithm::flash ? 2 : 3));  // decode, and prefill
  }
}

// Where a grid has 5 blocks at most.
size_t launches_of(const Case& c, Algorithm algorithm) {
  const Machine machine({.most_blocks = 5});
  HostArrays<float16> problem(c, Dtype::float16, algorithm);
  problem.forward();
  size_t launches = 0;
  for (const emulator::Call& call : emulator::take_calls()) launches += has(call.what, "kernel");
  problem.judge("by several launches");
  return launches;
}

TEST(one_launch_may_be_several) {
  for (Algorithm algorithm : {Algorithm::flash, Algorithm::safe})
    for (int64_t dim : {64, 130}) {  // by tensor cores and without
      Case c{{3, 2, 1, 34, 9, dim, dim}, {-1, 3}};
      CHECK(launches_of(c, algorithm) > (algorithm == Algorithm::flash ? 1 : 3));
    }
  const Case decode{{1, 2, 2, 3, 1500, 64, 64}};  // three splits of each head, and what joins them
  CHECK(launches_of(decode, Algorithm::flash) == 2 + 2);
}

TEST(what_no_kernel_takes_is_told) {
  emulator::take_calls();
  HostArrays<float16> problem = small();
  problem.p.algorithm = Algorithm::online, problem.p.dropout.p = 0.5;
  CHECK_THROWS(NotImplementedError,
               "no CUDA kernel of this build takes the problem: online, batch 1, heads 1 over 1, "
               "queries 4, keys 4, dim 64, value dim 64, float16; dropout",
               problem.forward());
  for (const emulator::Call& call : emulator::take_calls()) CHECK(!has(call.what, "kernel"));
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
  int flash = 0, backward = 0, ladder = 0;
  for (const CudaKernel& row : cuda_kernels()) {
    CHECK(row.architecture == "sm_80");
    flash += row.name.starts_with("flash_") || row.name.starts_with("decode_");
    ladder += row.name == "materialised", backward += row.name.starts_with("backward_");
  }
  CHECK(backward == int(std::size(cuda::all_backward_kernels)) && backward >= 4);
  CHECK(flash == int(std::size(cuda::all_flash_kernels)) && flash >= 2);
  CHECK(ladder == int(std::size(cuda::all_kernels)) && ladder >= 3);
}
