#include "math/score.hpp"

#include "../check.hpp"

using namespace fanano;

TEST(the_split_multiplies_to_the_scale) {
  for (double scale : {0.0, 1.0, -1.0, 0.125, -0.7, 3.0, 1e-3, 1e-30, -1e30, 1e7, 1e-300})
    for (double query : {1.0, 1e-3, -50.0}) {
      ScaleSplit<double> wide = split_scale<double>(scale);
      double exact = query * scale * log2e<double>;
      CHECK_CLOSE(query * wide.in_query * wide.in_score, exact, 1e-15 * std::fabs(exact));
      if (std::fabs(scale) > 1e37 || (scale != 0 && std::fabs(scale) < 1e-37)) continue;
      ScaleSplit<float> narrow = split_scale<float>(scale);
      CHECK_CLOSE(query * narrow.in_query * narrow.in_score, exact, 1e-7 * std::fabs(exact));
    }
}

TEST(one_factor_is_one) {
  for (double scale : {0.0, 1e-40, 1e-30, 1e-3, 1.0, 1e3, 1e30}) {
    ScaleSplit<float> split = split_scale<float>(scale);
    CHECK(split.in_query == 1 || split.in_score == 1);
  }
}

TEST(the_query_is_never_driven_out_of_range) {
  for (double scale : {1e30, -1e30, 1e-30, 1e38}) CHECK(split_scale<float>(scale).in_query == 1);
}
