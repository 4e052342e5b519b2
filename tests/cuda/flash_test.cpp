// Flash attention on the device, by the instructions of sm_80, against the float64 oracle.
#include "flash_check.hpp"

using namespace attention_case;

TEST(sizes_around_a_tile) {
  check_flash({flash_shape(1, 1, 1, 17, 1), {}});
  check_flash({flash_shape(1, 1, 1, 31, 63), {}});
  check_flash({flash_shape(1, 1, 1, 128, 64), {}});
  check_flash({flash_shape(1, 1, 1, 129, 65), {}});
  check_flash({flash_shape(1, 1, 1, 37, 211), {}});
}

TEST(head_sizes) {
  for (int64_t dim : {1, 8, 31, 32, 33, 72, 96, 100, 128, 200, 256})
    check_flash({flash_shape(1, 1, 1, 17, 40, dim)});
  check_flash({flash_shape(1, 1, 1, 70, 66, 256)});
  check_flash({flash_shape(1, 1, 1, 130, 70, 128)});
  check_flash({flash_shape(1, 1, 1, 130, 70, 96)});
  check_flash({flash_shape(1, 1, 1, 17, 70, 128, 7)});
  check_flash({flash_shape(1, 1, 1, 17, 70, 24, 130)});
  check_flash({flash_shape(1, 2, 1, 17, 70, 40, 0)});
}

TEST(strides) {
  for (int64_t dim : {20, 64, 200}) {
    Case c{flash_shape(2, 2, 1, 17, 40, dim)};
    for (Strides strides : {gaps, reversed}) c.strides = strides, check_flash(c);
  }
}

TEST(grouped_heads) { check_flash({flash_shape(2, 4, 2, 19, 70), {}}); }

TEST(masks) {
  check_flash({flash_shape(1, 1, 1, 150, 150), {-1, 0}});
  check_flash({flash_shape(1, 1, 1, 140, 70), {-1, 0}});  // rows that see nothing
  check_flash({flash_shape(1, 1, 1, 70, 200), {40, 3}});
  check_flash({flash_shape(1, 1, 1, 33, 130), {0, 0}});
}

TEST(lengths_and_what_lies_behind_them) {
  Case c{flash_shape(3, 1, 1, 40, 130), {}};
  c.queries = {40, 0, 33}, c.keys = {130, 67, 0}, c.data = hidden_nan;
  check_flash(c);
  c.queries = {16, 17, 1};  // some are decode's
  check_flash(c);
  c.queries = {40, 0, 33};
  c.keys.clear();  // tiles that are whole, but for the rows past the queries
  check_flash(c);
  c.keys = {63, 128, 65}, c.offsets = {0, 4, -3}, c.window = {-1, 30}, c.data = normal;
  check_flash(c);
}

TEST(hard_numbers) {
  Case c{flash_shape(1, 1, 1, 20, 200), {}};
  c.data = growing;
  check_flash(c);
  c.data = huge;
  check_flash(c);
  for (double scale : {-0.5, 3e4, -1e27, 1e31}) {
    c.data = normal, c.scale = scale;
    check_flash(c);
  }
  c.data = growing, c.scale = 1e6;  // logits become as large as they get, tile by tile
  check_flash(c);
  // Rows that see nothing of the first tile, and then scores far below 0.
  Case below{flash_shape(1, 1, 1, 100, 150), {3, 3}};
  below.data = far_below;
  check_flash(below);
}

TEST(a_scale_of_0) {
  Case c{flash_shape(1, 1, 1, 20, 70)};
  c.scale = -0.0;
  for (Data data : {endless, nan_scores}) {
    c.data = data;
    check_flash<bfloat16, bfloat16>(c, Dtype::bfloat16);
  }
}

TEST(nothing_to_see) {
  check_flash({flash_shape(1, 1, 1, 25, 0), {}});
  check_flash({flash_shape(0, 1, 1, 25, 5), {}});
}

TEST(what_it_does_not_take) {
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels) {
    if (!is_sm80(*kernel)) continue;
    DeviceProblem<float16> problem({flash_shape(1, 1, 1, 17, 4, 4, kernel->dim + 1)},
                                   kernel->dtype);
    CHECK(!kernel->takes(problem.p));
    CHECK(launch(*kernel, problem.p) == cudaErrorInvalidValue);
    problem.p.shape.value_dim = 4;
    CHECK(kernel->takes(problem.p));
    problem.p.shape.queries = 16;  // decode's
    CHECK(!kernel->takes(problem.p));
    problem.p.shape.queries = 17;
    problem.p.score.softcap = 1;
    CHECK(kernel->takes(problem.p) == kernel->general);
    problem.p.out_dtype = Dtype::float64;
    CHECK(!kernel->takes(problem.p));
  }
}
