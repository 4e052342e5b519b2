// Every option of flash attention, alone and with others, and results that are not rounded.
#include "flash_check.hpp"

using namespace attention_case;

namespace {

Case with_mask(Shape shape, Dtype dtype, std::initializer_list<bool> extends = {}) {
  Case c{shape};
  c.masked = true, c.mask_dtype = dtype;
  std::copy(extends.begin(), extends.end(), c.extends);
  return c;
}

}  // namespace

TEST(masks_of_the_caller) {
  check_flash(with_mask(flash_shape(2, 2, 1, 37, 70), Dtype::boolean));
  check_flash(with_mask(flash_shape(1, 1, 1, 130, 70), Dtype::float32));
  check_flash(
      with_mask(flash_shape(2, 2, 2, 19, 40, 24), Dtype::float64, {true, false, true, true}));
  check_flash(
      with_mask(flash_shape(2, 2, 2, 19, 40, 24), Dtype::float16, {false, true, false, true}));
  check_flash(
      with_mask(flash_shape(1, 2, 2, 20, 9, 100), Dtype::bfloat16, {true, true, true, false}));
  check_flash(with_mask(flash_shape(1, 1, 1, 20, 70), Dtype::float32, {true, true, true, false}));
  check_flash(with_mask(flash_shape(1, 1, 1, 20, 70, 100), Dtype::boolean));
  check_flash(with_mask(flash_shape(1, 1, 1, 20, 70, 200), Dtype::float32));
}

TEST(masks_and_positions) {
  Case c = with_mask(flash_shape(2, 1, 1, 40, 90), Dtype::float32);
  c.window = {30, 5}, c.queries = {40, 21}, c.keys = {90, 55}, c.offsets = {40, 3};
  c.data = hidden_nan;
  check_flash(c);
  c.mask_dtype = Dtype::boolean, c.dropout = {0.2, 5};
  check_flash(c);
}

TEST(softcap) {
  Case c{flash_shape(1, 1, 1, 20, 80)};
  c.softcap = 1.5;
  check_flash(c);
  c.softcap = 1e6;  // tanh of tiny numbers, which keep their digits
  check_flash(c);
  c.softcap = 30, c.data = huge, c.scale = -0.3;
  check_flash(c);
  c.softcap = 1e39, c.data = normal, c.scale = NAN;
  check_flash(c);
}

TEST(slopes) {
  Case c{flash_shape(1, 3, 1, 20, 140)};
  c.slopes = true;
  check_flash(c);
  c.window = {-1, 0}, c.offsets = {1 << 12};
  check_flash(c);
  c.offsets = {70}, c.softcap = 2, c.scale = 0.7;
  check_flash(c);
}

TEST(sinks) {
  Case c{flash_shape(1, 2, 1, 140, 70, 40), {-1, 0}};  // rows that see nothing but a sink
  c.sinks = true;
  check_flash(c);
  for (double size : {300, -300}) c.sink_size = size, check_flash(c);
  c.sink_size = 1, c.queries = {100};
  check_flash(c);
  c.slopes = true;
  check_flash(c);
  c.data = huge;
  check_flash(c);
  Case below{flash_shape(1, 1, 1, 20, 80)};  // the sink is far above all logits
  below.sinks = true, below.data = far_below, below.scale = 0.5;
  check_flash(below);
  Case none{flash_shape(1, 2, 2, 25, 0)};
  none.sinks = true;
  check_flash(none);
}

TEST(dropout) {
  Case c{flash_shape(2, 2, 1, 37, 70)};
  c.dropout = {0.3, 0x123456789abcdef, 7, 5, 1000, 8};
  check_flash(c);
  for (int64_t column : {1, 2, 3}) {
    c.shape = flash_shape(1, 1, 1, 18, 66, 32), c.dropout.column = (int64_t(1) << 34) + column;
    c.device_seed = column == 2;
    check_flash(c);
  }
  c.shape.dim = 130, c.shape.value_dim = 20, c.sinks = true;
  check_flash(c);
  c.dropout.p = 1;
  check_flash(c);
}

TEST(all_at_once) {
  for (int64_t dim : {32, 80, 128, 256}) {
    Case c = with_mask(flash_shape(2, 2, 1, 21, 75, dim, 31), Dtype::bfloat16);
    c.softcap = 20, c.slopes = c.sinks = true, c.dropout = {0.1, 3, 0, 0, 0, 1};
    c.window = {60, 3}, c.keys = {75, 40}, c.data = hidden_nan;
    check_flash(c);
    c.mask_dtype = Dtype::boolean, c.data = partly_nan;
    check_flash(c);
  }
}

TEST(results_in_float32) {
  auto check = [](const Case& c) {
    check_flash<float16, float>(c, Dtype::float16);
    check_flash<bfloat16, float>(c, Dtype::bfloat16);
  };
  check({flash_shape(2, 2, 1, 40, 70), {-1, 0}});
  check({flash_shape(1, 1, 1, 20, 70, 64, 31)});
  check({flash_shape(1, 1, 1, 20, 70, 100, 31)});
  Case c = with_mask(flash_shape(1, 1, 1, 20, 70, 130, 256), Dtype::boolean);
  c.sinks = true, c.strides = gaps;
  check(c);
}
