// Values that are NaN or infinite: rows that do not see them stay as they were, others become
// what plain attention makes of them.
#include "flash_check.hpp"

using namespace attention_case;

namespace {

Case partly(Shape shape, Window window = {}) {
  Case c{shape, window};
  c.data = partly_nan;
  return c;
}

}  // namespace

TEST(visible_to_all) { check_flash(partly(flash_shape(1, 1, 1, 20, 70))); }

TEST(visible_to_some) {
  check_flash(partly(flash_shape(1, 1, 1, 70, 70), {-1, 0}));
  check_flash(partly(flash_shape(1, 1, 1, 40, 100, 32, 40), {1, 0}));
  check_flash(partly(flash_shape(1, 2, 1, 33, 80, 96), {0, 1}));
  check_flash(partly(flash_shape(1, 1, 1, 33, 50, 256), {2, -1}));
  check_flash(partly(flash_shape(1, 1, 1, 33, 50, 100, 128), {1, 1}));
}

TEST(by_masks_and_dropout) {
  Case c = partly(flash_shape(1, 2, 1, 40, 50));
  c.masked = true;
  check_flash(c);
  c.mask_dtype = Dtype::float16, c.window = {2, 0};
  check_flash(c);
  c.masked = false, c.dropout = {0.5, 11}, c.sinks = true;  // dropped infinities are NaN
  check_flash(c);
}

TEST(weights_that_round_to_nothing) {
  // e^-30 is 0 as a half: times an infinity it is infinite none the less.
  Case c = partly(flash_shape(1, 1, 1, 20, 70), {1, 1});
  c.scale = 3;
  check_flash(c);
}

TEST(infinities_of_little_weight) {
  Case c{flash_shape(1, 2, 1, 20, 150)};
  c.scale = 1, c.data = risen_infinity;
  check_flash(c);
  c.data = light_infinity;
  check_flash(c);
  c.softcap = 400;
  check_flash(c);
  // Beside a sink all weigh little.
  c.softcap = 0, c.window = {0, 0}, c.sinks = true, c.shape.keys = 20;
  check_flash(c);
}

TEST(lengths) {
  Case c = partly(flash_shape(2, 1, 1, 20, 70));
  c.keys = {2, 64}, c.queries = {20, 7};
  check_flash(c);
}

TEST(neighbours_do_not_matter) { check_neighbours(20); }
