// Flash attention on the device, by the instructions of sm_80, against the float64 oracle.
#include "device_problem.hpp"

using namespace attention_case;

namespace {

void check_all(const Case& c) {
  int kernels_found = 0;
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels) {
    ++kernels_found;
    device::with_type(kernel->dtype, [&]<class T>() {
      DeviceProblem<T> problem(c, kernel->dtype);
      device::check(kernel->launch(problem.p, nullptr));
      problem.judge("flash");
    });
  }
  CHECK(kernels_found == 2);
}

Shape shape(int64_t batch, int64_t heads, int64_t kv_heads, int64_t queries, int64_t keys) {
  return {batch, heads, kv_heads, queries, keys, 64, 64};
}

}  // namespace

TEST(sizes_around_a_tile) {
  check_all({shape(1, 1, 1, 1, 1), {}});
  check_all({shape(1, 1, 1, 31, 63), {}});
  check_all({shape(1, 1, 1, 128, 64), {}});
  check_all({shape(1, 1, 1, 129, 65), {}});
  check_all({shape(1, 1, 1, 37, 211), {}});
}

TEST(grouped_heads) { check_all({shape(2, 4, 2, 19, 70), {}}); }

TEST(masks) {
  check_all({shape(1, 1, 1, 150, 150), {-1, 0}});
  check_all({shape(1, 1, 1, 140, 70), {-1, 0}});  // rows that see nothing
  check_all({shape(1, 1, 1, 70, 200), {40, 3}});
  check_all({shape(1, 1, 1, 33, 130), {0, 0}});
}

TEST(lengths_and_what_lies_behind_them) {
  Case c{shape(3, 1, 1, 40, 130), {}};
  c.queries = {40, 0, 33}, c.keys = {130, 67, 0}, c.data = hidden_nan;
  check_all(c);
  c.keys = {63, 128, 65}, c.offsets = {0, 4, -3}, c.window = {-1, 30}, c.data = normal;
  check_all(c);
}

TEST(hard_numbers) {
  Case c{shape(1, 1, 1, 20, 200), {}};
  c.data = growing;
  check_all(c);
  c.data = huge;
  check_all(c);
  c.data = normal, c.scale = -0.5;
  check_all(c);
  // Rows that see nothing of the first tile, and then scores far below 0.
  Case below{shape(1, 1, 1, 100, 150), {3, 3}};
  below.data = far_below;
  check_all(below);
}

TEST(nothing_to_see) {
  check_all({shape(1, 1, 1, 5, 0), {}});
  check_all({shape(0, 1, 1, 5, 5), {}});
}

TEST(what_it_does_not_take) {
  DeviceProblem<float16> problem({{1, 1, 1, 4, 4, 32, 64}}, Dtype::float16);
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels)
    CHECK(kernel->launch(problem.p, nullptr) == cudaErrorInvalidValue);
}
