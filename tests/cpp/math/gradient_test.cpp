#include "math/gradient.hpp"

#include "../check.hpp"

using namespace fanano;

TEST(the_gradient_of_a_row_is_that_of_its_softmax) {
  // loss = sum of dp p + dlse lse; its derivative by each logit, by differences.
  const double z[] = {0.3, -1.2, 2.5, 0.0}, dp[] = {1.0, -2.0, 0.5, 3.0}, dlse = 0.7;
  auto loss = [&](int changed, double h) {
    double sum = 0, weighted = 0;
    for (int j = 0; j < 4; ++j) {
      double weight = std::exp(z[j] + (j == changed ? h : 0));
      sum += weight, weighted += weight * dp[j];
    }
    return weighted / sum + dlse * std::log(sum);
  };
  double sum = 0, dot = 0;
  for (double x : z) sum += std::exp(x);
  for (int j = 0; j < 4; ++j) dot += std::exp(z[j]) / sum * dp[j];
  for (int j = 0; j < 4; ++j) {
    double h = 1e-5, slope = (loss(j, h) - loss(j, -h)) / (2 * h);
    CHECK_CLOSE(logit_gradient(std::exp(z[j]) / sum, dp[j], dot - dlse), slope, 1e-9);
  }
}

TEST(a_hidden_pair_has_none) { CHECK(logit_gradient(0.0, 5.0, -3.0) == 0); }

TEST(the_slope_of_a_softcap_keeps_its_digits) {
  for (double y : {0.0, 1e-9, 0.3, 1.0, 5.0, 20.0, 300.0}) {
    long double c = std::cosh((long double)y), exact = 1 / (c * c);
    double slope = softcap_slope(std::exp(-2 * y), 1.0);
    CHECK_CLOSE(slope, exact, 4e-16 * double(exact) * (1 + 2 * y));
    float low = softcap_slope(float(std::exp(-2 * y)), 1.0f);
    CHECK_CLOSE(low, exact, 4e-7 * double(exact) + 1e-44);
  }
  CHECK(softcap_slope(0.0, 1.0) == 0);
}
