// The gradients on the device, of every dtype, shape and option, by the kernel that a caller gets,
// against an oracle in wider arithmetic.
#include "backward_check.hpp"

using namespace attention_case;

TEST(sizes_around_a_tile) {
  check_all({shape(1, 1, 1, 1)});
  check_all({shape(31, 33, 16, 40)});
  check_next({shape(32, 32, 3, 3)});
  check_next({{1, 2, 2, 33, 31, 33, 8}});
  check_next({shape(67, 5, 9, 64)});
}

TEST(every_number_of_columns) {
  check_next({shape(3, 5, 576, 576)});
  check_all({shape(4, 3, 129, 130)});  // more than a block has
  for (int64_t dim : {1, 40})
    for (int64_t value_dim : {1, 65}) check_next({shape(2, 3, dim, value_dim)});
}

TEST(nothing_to_see) {
  check_all({shape(3, 0)});
  check_all({shape(0, 3)});
  check_all({shape(3, 4, 8, 0)}, {.dlse = true});
  check_all({{0, 1, 1, 3, 4, 8, 8}});
  Case c{{1, 3, 1, 15, 6, 8, 5}, {-1, 0}};  // most rows see nothing
  c.sinks = true, c.data = nan_scores;
  check_all(c, {.dlse = true});
  c.queries = {8}, c.data = hidden_nan;
  check_all(c);
  c = with_bias(shape(3, 0), Dtype::float32, 0b0100);
  c.sinks = true;
  check_next(c, {.dlse = true, .dbias = true});
}

TEST(grouped_heads) { check_all({{2, 6, 2, 3, 5, 8, 8}}); }

TEST(windows_over_many_tiles) {
  check_next({shape(70, 150), {40, 3}});
  check_next({shape(70, 100), {-1, 0}});
  check_next({shape(90, 40), {5, -1}});
  check_next({shape(80, 80), {0, 0}});
}

TEST(a_visible_nan_reaches_those_who_see_it) {
  for (Data data : {partly_nan, nan_scores})
    for (bool masked : {false, true}) {
      Case c{shape(25, 50), {9, 0}};
      c.data = data, c.masked = masked;
      check_with(c, Dtype::float64), check_next(c);
      c.window = {}, c.dropout = {0.5, 1, 0, 0, 0, 0};
      check_next(c);
    }
  // One column: scores are infinities of either sign, not NaN. With and without other keys.
  for (int64_t left : {0, 9}) {
    Case c{shape(40, 40, 1), {left, 0}};
    c.data = nan_scores;
    check_all(c);
  }
}

TEST(hard_numbers) {
  for (Data data : {growing, huge, far_below}) {
    Case c{shape(20, 70, 16, 16), {3, 100}};
    c.data = data;
    check_with(c, Dtype::float64), check_with(c, Dtype::float32);
  }
  for (double scale : {-0.5, 0.0, 1e4, -1e7, 1e32, 1e-32}) {
    Case c{shape(9, 40, 16, 16)};
    c.scale = scale;
    check_with(c, Dtype::float64), check_with(c, Dtype::float32);
  }
  Case c{shape(9, 40, 16, 16)};
  c.scale = 0, c.data = endless;
  check_with(c, Dtype::float32), check_with(c, Dtype::bfloat16);
}

TEST(layouts) {
  for (Strides strides : {gaps, reversed, repeated}) {
    Case c{{2, 2, 1, 9, 20, 5, 3}};
    c.strides = strides;
    check_with(c, Dtype::float64), check_next(c);
  }
}

TEST(partial_results) {
  Case c{{2, 2, 1, 9, 20, 8, 40}};
  c.strides = gaps;
  for (Dtype dtype : dtypes) check_with(c, dtype, {.dlse = true}, true);
}

TEST(the_order_of_warps_changes_nothing) {
  setenv("FANANO_EMULATOR_ORDER", "backward", 1);
  Case c = with_bias({1, 2, 1, 33, 40, 40, 8}, Dtype::float32, 0b0100);
  c.sinks = true, c.window = {-1, 0};
  for (int i = 0; i < 2; ++i) check_next(c, {.dlse = true, .dbias = true});
  unsetenv("FANANO_EMULATOR_ORDER");
}
