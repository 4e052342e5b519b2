// The gradients by sm_80's instructions, of both 16-bit dtypes, against an oracle in wider
// arithmetic: every variant, by the kernel that a caller gets.
#include "attention_options.hpp"
#include "backward_check.hpp"

using namespace attention_case;

namespace {

void check_halves(const Case& c, Wanted wanted = {}) {
  check_with(c, Dtype::bfloat16, wanted), check_with(c, Dtype::float16, wanted);
}

// With one of the dtypes, the other one the next time.
void check_half(const Case& c, Wanted wanted = {}) {
  static bool even = true;
  check_with(c, even ? Dtype::bfloat16 : Dtype::float16, wanted);
  even = !even;
}

Shape large(int64_t queries, int64_t keys, int64_t dim = 64) {
  return shape(queries, keys, dim, dim);
}

}  // namespace

TEST(sizes_around_a_tile) {
  check_halves(Case{large(1, 1)});
  check_halves(Case{large(33, 65)}, {.dlse = true});
  check_half(Case{large(129, 31)});
  check_half(Case{large(31, 129)});
  check_half(Case{shape(67, 70, 7, 33)});
  check_half(Case{large(3, 0)});
}

TEST(every_variant) {
  for (const cuda::BackwardKernel* kernel : cuda::all_backward_kernels) {
    if (!is_sm80(*kernel)) continue;
    Case c{{1, 2, 1, 40, 70, kernel->dim, kernel->dim - 3}, {50, 3}};
    if (kernel->general) c.masked = true, c.softcap = 3;
    check_with(c, kernel->dtype);
  }
}

TEST(grouped_heads) { check_halves(Case{{2, 6, 2, 20, 70, 64, 64}, {-1, 0}}); }

TEST(windows_over_many_tiles) {
  check_half(Case{large(150, 200), {40, 3}});
  check_half(Case{large(70, 140), {-1, 0}});
  check_half(Case{large(140, 40), {5, -1}});
}

TEST(hard_numbers) {
  for (Data data : {growing, huge, far_below}) {
    Case c{large(40, 100), {3, 100}};
    c.data = data;
    check_halves(c);
  }
  for (double scale : {-0.5, 1e4, -1e7, 1e32, 1e-32, 1e-70}) {
    Case c{large(9, 70)};
    c.scale = scale;
    check_halves(c);
  }
}

// Rows that see nothing but a sink give it all of their probability, whatever its size.
TEST(sinks_of_rows_that_see_nothing) {
  for (double size : {300.0, 1e6, 3e37}) {
    Case c{{1, 2, 1, 70, 40, 64, 64}, {-1, 0}};
    c.sinks = true, c.sink_size = size;
    check_half(c, {.dlse = true});
  }
}

TEST(every_option) {
  Case c{{2, 2, 1, 40, 70, 64, 64}, {60, 5}};
  c.softcap = 2, c.slopes = c.sinks = true;
  check_halves(c, {.dlse = true});
  c.dropout = {0.3, 5, 1, 2, 3, 6};
  check_halves(c);
  c.dropout.p = 1;
  check_half(c);
  for (Dtype dtype : {Dtype::boolean, Dtype::float16, Dtype::float32, Dtype::float64}) {
    Case masked = with_bias({2, 2, 1, 35, 40, 64, 64}, dtype, dtype == Dtype::float16 ? 5 : 15);
    masked.sinks = dtype == Dtype::float32;
    check_half(masked), check_half(masked);
  }
  c = Case{{3, 2, 2, 40, 70, 64, 64}, {-1, 0}};
  c.queries = {40, 0, 17}, c.keys = {70, 33, 0}, c.sinks = true;
  check_halves(c, {.dlse = true});
}

TEST(what_is_hidden_reaches_nothing) {
  for (bool masked : {false, true}) {
    Case c{{1, 2, 1, 70, 100, 64, 64}, {9, 0}};
    c.queries = {50}, c.keys = {77}, c.offsets = {-10}, c.data = hidden_nan, c.masked = masked;
    check_halves(c);
  }
  // Rows whose only key is masked: of NaN their sinks have nothing.
  Case c{large(40, 70), {0, 0}};
  c.masked = c.sinks = true, c.data = hidden_nan;
  check_halves(c);
}

TEST(a_visible_nan_reaches_those_who_see_it) {
  for (Data data : {partly_nan, nan_scores}) {
    Case c{large(40, 70), {9, 0}};
    c.data = data;
    check_halves(c);
    c.dropout = {0.5, 1, 0, 0, 0, 0};
    check_half(c);
  }
}

TEST(the_order_of_warps_changes_nothing) {
  setenv("FANANO_EMULATOR_ORDER", "backward", 1);
  Case c{{1, 2, 1, 70, 100, 64, 64}, {-1, 0}};
  check_halves(c, {.dlse = true});
  c = with_bias({1, 2, 1, 40, 70, 64, 64}, Dtype::float32);
  c.sinks = true;
  check_half(c, {.dbias = true});
  unsetenv("FANANO_EMULATOR_ORDER");
}

TEST(layouts) {
  for (Strides strides : {gaps, reversed, repeated}) {
    Case c{{2, 2, 1, 9, 40, 21, 3}};
    c.strides = strides;
    check_halves(c);
  }
}
