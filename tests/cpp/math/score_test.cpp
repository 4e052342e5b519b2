#include "math/score.hpp"

#include "../check.hpp"

using namespace fanano;

TEST(the_split_multiplies_to_the_scale) {
  for (double scale : {0.0, 1.0, -1.0, 0.125, -0.7, 3.0, 1e-3, 1e-30, -1e30, 1e7, 1e-300, 1e39,
                       -1e39, 1e300, 1.7e308, -1.7e308})
    for (double score : {0.0, 1.0, 1e-3, -50.0, 1e-300}) {
      ScaleSplit<double> wide = split_scale<double>(scale);
      long double exact = (long double)score * scale * log2e<long double>;
      if (std::fabs(exact) > 1e307L) continue;  // such a logit is out of range itself
      double logit = score * wide.in_query * wide.in_score.first * wide.in_score.second;
      CHECK_CLOSE(logit, double(exact), 1e-15 * std::fabs(double(exact)) + 1e-300);
    }
}

TEST(in_float_too) {
  for (double scale : {0.0, 1.0, -0.7, 3.0, 1e-30, -1e30, 1e-44, 1e39, -1e45, 1e300, 1.7e308})
    for (double score : {0.0, 1.0, -50.0, 1e-30, 1e30}) {
      ScaleSplit<float> split = split_scale<float>(scale);
      double exact = score * scale * log2e<double>;
      if (std::fabs(exact) > 3e38) continue;
      float logit = float(score) * split.in_query * split.in_score.first * split.in_score.second;
      CHECK_CLOSE(logit, exact, 4e-7 * std::fabs(exact) + 1e-37);
    }
}

TEST(one_factor_is_one) {
  for (double scale : {0.0, 1e-40, 1e-30, 1e-3, 0.5, 1.0, 1e3, 1e30}) {
    ScaleSplit<float> split = split_scale<float>(scale);
    CHECK(split.in_query == 1 || split.in_score.one());
  }
}

TEST(the_query_is_never_driven_out_of_range) {
  for (double scale : {0.7, 1.0, 1.3, 1e30, -1e30, 1e-30, 1e38, 1e300})
    CHECK(split_scale<float>(scale).in_query == 1);
  for (double scale : {0.125, -0.5, 0.69}) {
    CHECK(std::fabs(split_scale<float>(scale).in_query) <= 1);
    CHECK(split_scale<float>(scale).in_score.one());
  }
}
