// The general flash attention on the device: every dtype, shape and option, against an oracle in
// wider arithmetic.
#include "device_problem.hpp"

using namespace attention_case;

namespace {

template <class T, class Out> void check_case(const cuda::Kernels& kernels, const Case& c) {
  DeviceProblem<T, Out> problem(c, kernels.dtype);
  device::check(kernels.flash_plain(problem.p, nullptr));
  problem.judge("flash_plain");
}

void check_all(const Case& c) {
  for (const cuda::Kernels* kernels : cuda::all_kernels)
    device::with_type(kernels->dtype, [&]<class T>() { check_case<T, T>(*kernels, c); });
}

}  // namespace

TEST(sizes_around_a_tile) {
  //         batch heads kv queries keys dim value_dim
  check_all({{1, 1, 1, 1, 1, 1, 1}, {}});
  check_all({{1, 1, 1, 31, 33, 16, 40}, {}});
  check_all({{1, 2, 1, 32, 32, 3, 3}, {}});
  check_all({{2, 2, 2, 33, 31, 33, 8}, {}});
  check_all({{1, 1, 1, 5, 67, 64, 64}, {}});
}
