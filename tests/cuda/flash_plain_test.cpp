// The general flash attention on the device: every dtype, shape and option, against an oracle in
// wider arithmetic.
#include <iterator>

#include "attention_options.hpp"
#include "device_problem.hpp"

using namespace attention_case;

namespace {

// The last row of its dtype, which takes all.
const cuda::FlashKernel& plain_of(Dtype dtype) {
  const cuda::FlashKernel* last = nullptr;
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels)
    if (kernel->dtype == dtype) last = kernel;
  return *last;
}

template <class T, class Out> void check_case(const Case& c, Dtype dtype) {
  const cuda::FlashKernel& kernel = plain_of(dtype);
  DeviceProblem<T, Out> problem(c, dtype);
  CHECK(kernel.takes(problem.p));
  device::check(launch(kernel, problem.p));
  problem.judge(kernel.name);
}

void check_with(const Case& c, Dtype dtype, bool partial = false) {
  device::with_type(dtype, [&]<class T>() {
    partial ? check_case<T, accumulator_t<T>>(c, dtype) : check_case<T, T>(c, dtype);
  });
}

const Dtype dtypes[] = {Dtype::float64, Dtype::float32, Dtype::bfloat16, Dtype::float16};

void check_all(const Case& c) {
  for (Dtype dtype : dtypes) check_with(c, dtype);
}

// With one dtype, another one each time.
void check_next(const Case& c) {
  static size_t count = 0;
  check_with(c, dtypes[count++ % 4]);
}

Shape shape(int64_t queries, int64_t keys, int64_t dim = 8, int64_t value_dim = 5) {
  return {1, 1, 1, queries, keys, dim, value_dim};
}

}  // namespace

TEST(sizes_around_a_tile) {
  check_all({shape(1, 1, 1, 1)});
  check_all({shape(31, 33, 16, 40)});
  check_all({shape(32, 32, 3, 3)});
  check_all({{1, 2, 2, 33, 31, 33, 8}});
  check_all({shape(5, 67, 64, 64)});
}

TEST(every_number_of_columns) {
  check_next({shape(3, 5, 576, 576)});
  check_next({shape(3, 5, 576, 576)});
  check_all({shape(4, 33, 3, 129)});  // one more than a block has of 128
  check_with({shape(3, 7, 40, 65)}, Dtype::float64);
  for (int64_t dim : {1, 31, 128})
    for (int64_t value_dim : {1, 16, 128}) check_next({shape(2, 3, dim, value_dim)});
}

TEST(nothing_to_see) {
  check_all({shape(3, 0)});
  check_all({shape(3, 4, 8, 0)});
  check_all({{0, 1, 1, 3, 4, 8, 8}});
  check_all({{1, 1, 1, 0, 4, 8, 8}});
  Case c{{1, 3, 1, 15, 6, 8, 5}, {-1, 0}};  // most rows see nothing
  c.sinks = true, c.data = nan_scores;
  check_all(c);
  c.queries = {8};
  check_with(c, Dtype::float64), check_next(c);
  c = {shape(3, 0)};
  c.sinks = true;
  check_next(c);
}

TEST(grouped_heads) { check_all({{2, 4, 2, 3, 5, 8, 8}}); }

TEST(each_option) {
  for (Option option : options) {
    Case c{{2, 1, 1, 20, 45, 8, 5}};
    option(c);
    check_with(c, Dtype::float64), check_next(c);
  }
}

// Half of the options at once, drawn until every two have met.
TEST(every_two_options) {
  constexpr size_t n = std::size(options);
  std::mt19937 random(5);
  bool met[n][n] = {};
  auto all_met = [&] {
    for (size_t a = 0; a < n; ++a)
      for (size_t b = 0; b < a; ++b)
        if (!met[a][b]) return false;
    return true;
  };
  while (!all_met()) {
    Case c{{2, 2, 1, 20, 45, 8, 5}};
    std::vector<size_t> drawn;
    for (size_t a = 0; a < n; ++a)
      if (random() % 2) drawn.push_back(a), options[a](c);
    for (size_t a : drawn)
      for (size_t b : drawn) met[a][b] = true;
    check_next(c);
  }
}

TEST(windows_over_many_tiles) {
  check_next({shape(70, 200), {40, 3}});
  check_next({shape(70, 150), {-1, 0}});
  check_next({shape(40, 130), {0, 0}});
  check_next({shape(40, 130), {5, -1}});
}

TEST(masks_of_every_dtype_and_extent) {
  for (Dtype dtype :
       {Dtype::boolean, Dtype::float64, Dtype::float32, Dtype::bfloat16, Dtype::float16})
    for (int extends : {0b1111, 0b0101, 0b1010, 0b0000}) {
      Case c{{2, 2, 2, 9, 20, 4, 3}};
      c.masked = true, c.mask_dtype = dtype, c.sinks = dtype == Dtype::float16;
      for (int axis = 0; axis < 4; ++axis) c.extends[axis] = extends >> axis & 1;
      check_all(c);
    }
}

TEST(a_mask_whose_rows_are_the_lowest_number) {
  for (Dtype mask : {Dtype::float64, Dtype::float32, Dtype::bfloat16})
    for (Dtype dtype : {Dtype::float64, Dtype::float32}) {
      Case c{shape(3, 40)};
      c.masked = true, c.mask_dtype = mask;
      check_with(c, dtype);
    }
}

TEST(a_visible_nan_reaches_those_who_see_it) {
  for (Data data : {partly_nan, nan_scores})
    for (bool masked : {false, true}) {
      Case c{shape(25, 50), {9, 0}};
      c.data = data, c.masked = masked;
      check_with(c, Dtype::float64), check_next(c), check_next(c);
      c.window = {}, c.dropout = {0.5, 1, 0, 0, 0, 0};
      check_next(c);
    }
}

TEST(infinities_of_little_weight) {
  Case c{{1, 2, 1, 20, 110, 8, 5}};
  c.scale = 1, c.data = light_infinity;
  check_all(c);
  c.window = {0, 0}, c.sinks = true, c.shape.keys = 20;  // beside a sink all weigh little
  check_all(c);
}

TEST(hard_numbers) {
  for (Data data : {growing, huge, far_below}) {
    Case c{shape(20, 110, 16, 16), {3, 100}};
    c.data = data;
    check_with(c, Dtype::float64), check_with(c, Dtype::float32), check_next(c);
  }
  for (double scale : {-0.5, 1e4, -1e7, 1e32, 1e-32}) {
    Case c{shape(9, 40, 16, 16)};
    c.scale = scale;
    check_with(c, Dtype::float64), check_with(c, Dtype::float32), check_with(c, Dtype::bfloat16);
  }
}

TEST(softcaps) {
  for (double softcap : {1e-3, 1.0, 50.0, 1e300})
    for (double scale : {1e-4, 1.0, 1e3}) {
      Case c{shape(5, 40)};
      c.softcap = softcap, c.scale = scale;
      check_with(c, Dtype::float64), check_with(c, Dtype::float32);
    }
}

TEST(values_whose_sum_overflows) {
  for (bool some_nan : {false, true}) {
    Case c{shape(20, 70)};
    c.value_size = 5e37, c.data = some_nan ? partly_nan : normal, c.window = {30, 0};
    check_with(c, Dtype::float32), check_with(c, Dtype::bfloat16);
    c.value_size = 3e307, c.sinks = true;
    check_with(c, Dtype::float64);
  }
}

TEST(tiny_values_beside_a_nan) {
  Case c{shape(20, 40), {9, 0}};
  c.data = partly_nan, c.value_size = 1e-306;
  check_with(c, Dtype::float64);
  c.value_size = 1e-36;
  check_with(c, Dtype::float32);
}

TEST(layouts) {
  for (Strides strides : {gaps, reversed, repeated}) {
    Case c{{2, 2, 1, 9, 20, 5, 3}};
    c.strides = strides;
    check_with(c, Dtype::float64), check_next(c);
  }
}

TEST(dropout) {
  for (int64_t column : {0, 1, 2, 3}) {
    Case c{{2, 2, 1, 9, 70, 8, 5}, {40, 0}};
    c.dropout = {0.5, ~uint64_t(0), 0, 1, int64_t(UINT32_MAX) - 3, int64_t(UINT32_MAX) - column};
    check_next(c);
  }
  Case c{shape(3, 40)};
  c.dropout = {1, 7, 0, 0, 0, 0};
  check_all(c);
  c.dropout.p = 1e-3;
  check_next(c);
  c.dropout.p = 0.5, c.device_seed = true;
  check_all(c);
}

TEST(partial_results) {
  Case c{{2, 2, 1, 9, 20, 8, 40}};
  c.strides = gaps;
  for (Dtype dtype : dtypes) check_with(c, dtype, true);
}

TEST(padded_keys_are_not_read) {
  Case c{shape(5, 20)};
  c.keys = {20};
  DeviceProblem<double> problem(c, Dtype::float64);
  problem.p.shape.keys = 70;  // of which there are only 20
  const cuda::FlashKernel& kernel = plain_of(Dtype::float64);
  device::check(launch(kernel, problem.p));
  problem.judge(kernel.name);
}

TEST(the_order_of_warps_changes_nothing) {
  setenv("FANANO_EMULATOR_ORDER", "backward", 1);
  check_all({{1, 2, 1, 33, 70, 40, 8}, {-1, 0}});
  unsetenv("FANANO_EMULATOR_ORDER");
}
