// What a build without CUDA answers (cpp/no_cuda).
#include "check.hpp"
#include "cuda.hpp"
#include "errors.hpp"

using namespace fanano;

TEST(it_says_that_there_are_no_kernels) {
  CHECK(!built_with_cuda());
  CHECK(cuda_kernels().empty());
  CHECK(why_no_cuda() == "this build of fanano has no CUDA kernels");
  CHECK(device_workspace({}) == 0);
  CHECK_THROWS(NotImplementedError,
               "attention cannot run on a CUDA device: this build of fanano has no CUDA kernels. "
               "Copy the arrays to the CPU",
               forward_on_device({}, 0, nullptr, nullptr));
}
