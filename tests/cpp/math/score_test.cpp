#include "math/score.hpp"

#include "../check.hpp"

using namespace fanano;

template <class T> static double logit(double score, const Scale<T>& scale) {
  return double(T(score) * scale.sign * scale.power * scale.size);
}

TEST(the_parts_multiply_to_the_scale) {
  for (double scale : {0.0, 1.0, -1.0, 0.125, -0.7, 3.0, 1e-3, 1e-30, -1e30, 1e7, 1e-300, 1e39,
                       -1e39, 1e300, 1.7e308, -1.7e308})
    for (double score : {0.0, 1.0, 1e-3, -50.0, 1e-300}) {
      long double exact = (long double)score * scale * log2e<long double>;
      if (std::fabs(exact) > 1e307L) continue;  // such a logit is out of range itself
      CHECK_CLOSE(logit(score, split_scale<double>(scale, log2e<double>)), double(exact),
                  1e-15 * std::fabs(double(exact)) + 1e-300);
    }
}

TEST(in_float_too) {
  for (double scale : {0.0, 1.0, -0.7, 3.0, 1e-30, -1e30, 1e-44, 1e39, -1e45, 1e300, 1.7e308})
    for (double score : {0.0, 1.0, -50.0, 1e-30, 1e30}) {
      double exact = score * scale * log2e<double>;
      if (std::fabs(exact) > 3e38) continue;
      CHECK_CLOSE(logit(score, split_scale<float>(scale, log2e<double>)), exact,
                  4e-7 * std::fabs(exact) + 1e-37);
    }
}

TEST(only_a_sign_or_a_zero_multiplies_the_query) {
  for (double scale : {1e-300, 1e-30, 0.7, 1.0, 1e30, 1e300}) {
    CHECK(split_scale<float>(scale).sign == 1);
    CHECK(split_scale<float>(-scale).sign == -1);
  }
  CHECK(split_scale<float>(0).sign == 0);
}

// A size of 0 or infinity would make NaN of a score of -inf or 0.
TEST(the_size_is_positive_and_finite) {
  for (double scale : {0.0, 5e-324, 1e-80, 1e-45, 1.0, -1e45, 1e300, 1.7e308})
    for (double unit : {1.0, log2e<double>}) {
      Scale<float> narrow = split_scale<float>(scale, unit);
      CHECK(narrow.size > 0 && narrow.size < infinity<float>);
      Scale<double> wide = split_scale<double>(scale, unit);
      CHECK(wide.size > 0 && wide.size < infinity<double>);
    }
}

TEST(common_scales_need_no_second_factor) {
  for (double scale : {1e-20, 0.125, 1.0, -3.0, 1e20}) CHECK(split_scale<float>(scale).power == 1);
}
