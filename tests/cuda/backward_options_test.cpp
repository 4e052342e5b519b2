// Every option of the gradients, alone and with others.
#include <iterator>

#include "attention_options.hpp"
#include "backward_check.hpp"

using namespace attention_case;

TEST(each_option) {
  for (Option option : options) {
    Case c{{2, 1, 1, 20, 45, 8, 5}};
    option(c);
    check_with(c, Dtype::float64, {.dlse = true}), check_next(c);
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
    check_next(c, {.dlse = random() % 2 == 0, .dbias = c.additive()});
  }
}

TEST(the_gradient_of_masks_of_every_dtype_and_extent) {
  for (Dtype dtype : {Dtype::float64, Dtype::float32, Dtype::bfloat16, Dtype::float16})
    for (int extends : {0b1111, 0b0101, 0b1010, 0b0000})
      check_all(with_bias({2, 2, 2, 9, 20, 4, 3}, dtype, extends), {.dbias = true});
  for (int extends : {0b1100, 0b0111, 0b1000, 0b0100})  // several tiles become one
    check_next(with_bias({2, 2, 1, 40, 70, 4, 3}, Dtype::float32, extends),
               {.dlse = true, .dbias = true});
  Case c = with_bias({2, 2, 1, 40, 70, 4, 3}, Dtype::float64);
  c.softcap = 1, c.queries = {40, 9}, c.keys = {33, 70}, c.window = {20, 30};
  check_with(c, Dtype::float64, {.dbias = true});
}

TEST(softcaps) {
  for (double softcap : {1e-3, 1.0, 30.0, 1e300})
    for (double scale : {1e-32, 1e-4, 1.0}) {
      Case c{shape(5, 40)};
      c.softcap = softcap, c.scale = scale;
      check_with(c, Dtype::float64), check_with(c, Dtype::float32);
    }
}

TEST(sinks_beside_anything) {
  for (double scale : {1e-30, 1.0, -4.0}) {
    Case c{{2, 3, 1, 9, 20, 16, 16}};
    c.sinks = true, c.scale = scale, c.queries = {9, 4};
    check_with(c, Dtype::float64, {.dlse = true}), check_with(c, Dtype::float32, {.dlse = true});
  }
  Case below{shape(20, 40, 8, 8)};  // the sink is far above all logits
  below.sinks = true, below.data = far_below, below.scale = 0.5;
  check_all(below, {.dlse = true});
}

TEST(dropout) {
  for (int64_t column : {0, 1, 2, 3}) {
    Case c{{2, 2, 1, 9, 40, 8, 5}, {40, 0}};
    c.dropout = {0.5, ~uint64_t(0), 0, 1, int64_t(UINT32_MAX) - 3, int64_t(UINT32_MAX) - column};
    check_next(c, {.dlse = column % 2 == 1});
  }
  Case c{shape(3, 40)};
  c.dropout = {1, 7, 0, 0, 0, 0};
  check_all(c);
}
