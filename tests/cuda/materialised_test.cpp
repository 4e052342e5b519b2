// Materialised attention on the device: every dtype and algorithm, against an oracle in wider
// arithmetic.
#include "device_problem.hpp"

using namespace attention_case;

namespace {

const Algorithm algorithms[] = {Algorithm::naive, Algorithm::safe, Algorithm::online};

template <class T, class Out> void check_case(const cuda::Kernels& kernels, const Case& c) {
  DeviceProblem<T, Out> problem(c, kernels.dtype);
  const Shape& s = c.shape;
  device::Buffer<accumulator_t<T>> scores(size_t(s.batch * s.heads * s.queries * s.keys));
  for (Algorithm algorithm : algorithms) {
    if (algorithm == Algorithm::naive && c.data != normal) continue;  // it overflows
    problem.p.algorithm = algorithm;
    device::check(kernels.materialised(problem.p, scores.data(), nullptr));
    problem.judge("algorithm " + std::to_string(int(algorithm)));
  }
}

void check_all(const Case& c, bool partial = false) {
  for (const cuda::Kernels* kernels : cuda::all_kernels)
    device::with_type(kernels->dtype, [&]<class T>() {
      partial ? check_case<T, accumulator_t<T>>(*kernels, c) : check_case<T, T>(*kernels, c);
    });
}

}  // namespace

TEST(sizes_around_a_tile) {
  //         batch heads kv queries keys dim value_dim
  check_all({{1, 1, 1, 1, 1, 1, 1}, {}});
  check_all({{1, 2, 1, 15, 17, 16, 16}, {}});
  check_all({{2, 2, 2, 16, 16, 17, 15}, {}});
  check_all({{1, 1, 1, 17, 37, 33, 8}, {}});
}

TEST(grouped_heads) {
  check_all({{2, 4, 2, 5, 19, 8, 8}, {}});  // h / 2 is not h % 2
}

TEST(masks) {
  check_all({{1, 1, 1, 20, 20, 8, 8}, {-1, 0}});
  check_all({{1, 2, 1, 23, 9, 8, 8}, {-1, 0}});  // rows that see nothing
  check_all({{1, 1, 1, 9, 35, 8, 8}, {3, 2}});
}

TEST(lengths_and_what_lies_behind_them) {
  Case c{{3, 1, 1, 18, 21, 8, 8}, {-1, 0}};
  c.queries = {18, 0, 7}, c.keys = {21, 13, 0}, c.data = hidden_nan;
  check_all(c);
  c.data = normal, c.keys = {5, 21, 17}, c.offsets = {0, 4, -3};
  check_all(c);
}

TEST(hard_numbers) {
  Case c{{1, 1, 1, 9, 70, 16, 16}, {}};
  c.data = growing;
  check_all(c);
  c.data = huge;
  check_all(c);
  c.data = normal, c.scale = -0.5;
  check_all(c);
}

TEST(partial_results) { check_all({{1, 2, 2, 6, 18, 8, 8}, {}}, true); }

TEST(no_keys_and_no_values) {
  check_all({{1, 1, 1, 3, 0, 8, 8}, {}});
  check_all({{1, 1, 1, 3, 4, 8, 0}, {}});
  check_all({{0, 1, 1, 3, 4, 8, 8}, {}});
}
