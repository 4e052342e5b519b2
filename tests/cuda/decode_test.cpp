// Decode on the device, the kernels of sequences with at most 16 queries, against the float64
// oracle: tiles of 16 rows, tiles of 128 keys (of 256 columns 64), splits of 512.
#include <iterator>

#include "attention_options.hpp"
#include "flash_check.hpp"

using namespace attention_case;

namespace {

Case of_shape(Shape shape, Data data = normal, Window window = {}) {
  Case c{shape, window};
  c.data = data;
  return c;
}

Case with_mask(Shape shape, Dtype dtype, std::initializer_list<bool> extends = {}) {
  Case c{shape};
  c.masked = true, c.mask_dtype = dtype;
  std::copy(extends.begin(), extends.end(), c.extends);
  return c;
}

// With one dtype, another one each time.
void check_next(const Case& c) {
  static bool half = false;
  half = !half;
  half ? check_flash<float16, float16>(c, Dtype::float16)
       : check_flash<bfloat16, bfloat16>(c, Dtype::bfloat16);
}

// Whether there is one of this head tile: of others, the general kernel would be tested.
bool is_built(int64_t dim) {
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels)
    if (is_decode(*kernel) && kernel->dim == dim) return true;
  return false;
}

}  // namespace

TEST(sizes_around_a_tile) {
  for (int64_t keys : {1, 31, 33, 127, 128, 129}) check_next({flash_shape(1, 1, 1, 1, keys)});
  check_flash({flash_shape(1, 2, 2, 15, 211)});
}

TEST(rows_of_a_group) {  // the tile's 16, fewer, and more
  check_next({flash_shape(1, 16, 2, 2, 70)});
  check_next({flash_shape(2, 10, 2, 3, 40), {-1, 0}});
  check_next({flash_shape(1, 6, 1, 3, 70), {-1, 0}});
  check_next({flash_shape(1, 3, 1, 16, 600), {-1, 0}});
  check_next({flash_shape(1, 33, 1, 1, 530)});
}

TEST(splits) {
  for (int64_t keys : {511, 512, 513, 1030}) {
    check_next(of_shape(flash_shape(1, 2, 1, 2, keys), growing));
    check_next(of_shape(flash_shape(1, 4, 2, 3, keys), normal, {-1, 0}));
  }
  // Windows that begin and end within a split, at its end, and in one of which a row sees nothing.
  Case c = of_shape(flash_shape(1, 2, 1, 5, 1590), hidden_nan, {600, 0});
  check_next(c);
  c.window = {3, 3}, c.offsets = {510};
  check_next(c);
  c.window = {300, -1}, c.offsets = {1500};
  check_next(c);
  c.offsets = {2000};  // beyond the keys
  check_next(c);
  c.window = {3, 3}, c.offsets = {1025};  // the last rows see nothing of the split before
  check_next(c);
}

TEST(neighbours_do_not_matter) { check_neighbours(5); }

TEST(head_sizes) {
  for (int64_t dim : {1, 8, 31, 33, 72, 100, 200}) check_next({flash_shape(1, 4, 2, 3, 40, dim)});
  for (int64_t dim : {32, 64, 96, 128, 256})
    if (is_built(dim)) check_next({flash_shape(1, 2, 1, 3, 530, dim), {-1, 0}});
  check_next({flash_shape(1, 2, 1, 3, 70, 128, 7)});
  check_next({flash_shape(1, 2, 1, 3, 70, 24, 130)});
  for (int64_t keys : {40, 530}) {
    check_next({flash_shape(1, 2, 1, 3, keys, 40, 0)});
    check_next({flash_shape(1, 2, 1, 3, keys, 64, 31)});
  }
}

TEST(a_scale_of_0) {
  Case c{flash_shape(1, 2, 1, 3, 70)};
  c.scale = -0.0;
  for (Data data : {endless, nan_scores}) {
    c.data = data;
    check_flash<bfloat16, bfloat16>(c, Dtype::bfloat16);
  }
}

TEST(strides) {
  for (int64_t dim : {20, 64, 200}) {
    Case c{flash_shape(2, 2, 1, 3, dim == 64 ? 530 : 40, dim)};
    for (Strides strides : {gaps, reversed, repeated}) c.strides = strides, check_next(c);
  }
}

TEST(lengths_and_what_lies_behind_them) {
  Case c = of_shape(flash_shape(4, 2, 1, 3, 1100), hidden_nan, {-1, 0});
  c.queries = {3, 0, 2, 1}, c.keys = {1100, 67, 0, 600}, c.sinks = true;
  check_flash(c);
  c.offsets = {0, 4, -3, 700}, c.window = {-1, 30}, c.data = normal;
  check_next(c);
  c.shape.keys = 70, c.keys = {70, 67, 0, 1};  // of one split
  check_flash(c);
}

TEST(sequences_of_both_kinds) {
  Case c = of_shape(flash_shape(4, 4, 2, 40, 600), hidden_nan, {-1, 0});
  c.queries = {16, 40, 0, 17}, c.keys = {600, 200, 60, 67};
  check_flash(c);
  c.masked = true, c.mask_dtype = Dtype::float32, c.sinks = true;
  check_next(c);
}

TEST(hard_numbers) {
  Case c = of_shape(flash_shape(1, 2, 1, 2, 700), growing);
  check_flash(c);
  c.data = huge;
  check_next(c);
  c.data = normal;
  for (double scale : {-0.5, 3e4, -1e27, 1e31}) c.scale = scale, check_flash(c);
  c.data = growing, c.scale = 1e6;  // logits become as large as they get, split by split
  check_flash(c);
  // Rows that see nothing of the first split, and then scores far below 0.
  Case below = of_shape(flash_shape(1, 1, 1, 9, 600), far_below, {3, 3});
  below.offsets = {505};
  check_flash(below);
}

TEST(nothing_to_see) {
  Case c{flash_shape(1, 2, 2, 5, 0)};
  c.sinks = true;
  check_flash(c);
  check_flash({flash_shape(0, 1, 1, 5, 5)});
  check_flash({flash_shape(1, 1, 1, 0, 5)});
}

TEST(masks_of_the_caller) {
  check_flash(with_mask(flash_shape(2, 4, 2, 3, 70), Dtype::boolean));
  check_next(with_mask(flash_shape(1, 4, 2, 3, 600), Dtype::float32));
  const Shape shape = flash_shape(2, 4, 2, 3, 140, 24);
  check_next(with_mask(shape, Dtype::float64, {true, false, true, true}));
  check_next(with_mask(shape, Dtype::float16, {false, true, false, true}));
  check_next(with_mask(shape, Dtype::bfloat16, {true, true, true, false}));
  Case c = with_mask(flash_shape(2, 4, 1, 5, 140), Dtype::float32);
  c.window = {30, 5}, c.queries = {5, 2}, c.keys = {140, 55}, c.offsets = {40, 3};
  c.data = hidden_nan;
  check_flash(c);
}

TEST(softcap_slopes_and_sinks) {
  Case c{flash_shape(1, 3, 1, 2, 140)};
  c.softcap = 1.5;
  check_next(c);
  c.softcap = 30, c.data = huge, c.scale = -0.3;
  check_next(c);
  c = {flash_shape(1, 6, 2, 3, 600)}, c.slopes = true;
  check_next(c);
  c.window = {-1, 0}, c.offsets = {1 << 12}, c.softcap = 2, c.sinks = true;
  check_next(c);
  Case below = of_shape(flash_shape(1, 3, 1, 2, 600), far_below);  // the sink is far above
  below.sinks = true, below.scale = 0.5;
  check_next(below);
}

TEST(dropout) {
  Case c{flash_shape(2, 4, 2, 3, 600)};
  c.dropout = {0.3, 0x123456789abcdef, 7, 5, 1000, 8}, c.sinks = true;
  check_next(c);
  c.shape.keys = 70, c.dropout.column = (int64_t(1) << 34) + 3;
  check_flash(c);
  c.dropout.p = 1;
  check_next(c);
}

TEST(values_that_are_not_finite) {
  check_flash(of_shape(flash_shape(1, 2, 1, 3, 70), partly_nan));
  check_flash(of_shape(flash_shape(1, 2, 1, 7, 530), partly_nan, {1, 0}));
  check_next(of_shape(flash_shape(1, 3, 1, 7, 60, 100, 128), partly_nan, {1, 1}));
  check_next(of_shape(flash_shape(1, 3, 1, 7, 60, 256), partly_nan, {2, -1}));
  check_flash(of_shape(flash_shape(1, 2, 1, 3, 70), nan_scores));
  Case c = with_mask(flash_shape(1, 4, 2, 3, 50), Dtype::float16);
  c.data = partly_nan, c.window = {2, 0};
  check_flash(c);
  c.masked = false, c.dropout = {0.5, 11}, c.sinks = true;  // dropped infinities are NaN
  check_flash(c);
}

TEST(all_at_once) {
  for (int64_t dim : {32, 64, 96, 128, 256}) {
    if (!is_built(dim)) continue;
    Case c = with_mask(flash_shape(2, 4, 2, 5, 530, dim, 31), Dtype::bfloat16);
    c.softcap = 20, c.slopes = c.sinks = true, c.dropout = {0.1, 3, 0, 0, 0, 1};
    c.window = {515, 3}, c.keys = {530, 40}, c.data = hidden_nan;
    check_next(c);
    c.mask_dtype = Dtype::boolean, c.data = partly_nan;
    check_next(c);
  }
}

TEST(the_order_of_warps_changes_nothing) {
  setenv("FANANO_EMULATOR_ORDER", "backward", 1);
  Case c{flash_shape(1, 4, 2, 5, 600), {-1, 3}};
  check_next(c);
  c.masked = true, c.mask_dtype = Dtype::float32, c.sinks = true;
  check_next(c);
  unsetenv("FANANO_EMULATOR_ORDER");
}

TEST(results_in_float32) {
  auto check = [](const Case& c) {
    check_flash<float16, float>(c, Dtype::float16);
    check_flash<bfloat16, float>(c, Dtype::bfloat16);
  };
  check({flash_shape(2, 4, 2, 3, 530), {-1, 0}});
  check({flash_shape(1, 2, 1, 3, 70, 64, 31)});
  Case c{flash_shape(1, 2, 1, 3, 70)};
  c.sinks = true, c.strides = gaps;
  check(c);
}

TEST(what_it_does_not_take) {
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels) {
    if (!is_decode(*kernel)) continue;
    DeviceProblem<float16> problem({flash_shape(1, 1, 1, 16, 4, 4, kernel->dim)}, kernel->dtype);
    CHECK(kernel->takes(problem.p));
    problem.p.shape.queries = 17;
    CHECK(!kernel->takes(problem.p));
    CHECK(launch(*kernel, problem.p) == cudaErrorInvalidValue);
    problem.p.shape.queries = 4, problem.p.shape.value_dim = kernel->dim + 1;
    CHECK(!kernel->takes(problem.p));
    problem.p.shape.value_dim = 4, problem.p.out_dtype = Dtype::float64;
    CHECK(!kernel->takes(problem.p));
  }
}
