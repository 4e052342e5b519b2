// Materialised attention on the device: every dtype and algorithm, against an oracle in wider
// arithmetic.
#include "attention_options.hpp"
#include "device_problem.hpp"

using namespace attention_case;

namespace {

const Algorithm algorithms[] = {Algorithm::naive, Algorithm::safe, Algorithm::online};

template <class T, class Out>
void check_case(const cuda::Kernels& kernels, const Case& c, Algorithm algorithm) {
  DeviceProblem<T, Out> problem(c, kernels.dtype);
  const Shape& s = c.shape;
  device::Buffer<accumulator_t<T>> scores(size_t(s.batch * s.heads * s.queries * s.keys));
  problem.p.algorithm = algorithm;
  device::check(kernels.materialised(problem.p, scores.data(), nullptr));
  problem.judge("algorithm " + std::to_string(int(algorithm)));
}

// The naive one overflows where numbers are not ordinary.
bool fit_for(Algorithm algorithm, const Case& c) {
  return algorithm != Algorithm::naive || (c.data == normal && !c.additive());
}

void check_all(const Case& c, bool partial = false) {
  for (const cuda::Kernels* kernels : cuda::all_kernels)
    for (Algorithm algorithm : algorithms)
      if (fit_for(algorithm, c))
        device::with_type(kernels->dtype, [&]<class T>() {
          partial ? check_case<T, accumulator_t<T>>(*kernels, c, algorithm)
                  : check_case<T, T>(*kernels, c, algorithm);
        });
}

// With one dtype and algorithm, other ones each time.
void check_next(const Case& c) {
  static size_t count = 0;
  const cuda::Kernels& kernels = *cuda::all_kernels[count % std::size(cuda::all_kernels)];
  while (!fit_for(algorithms[count % 3], c)) ++count;
  const Algorithm algorithm = algorithms[count++ % 3];
  device::with_type(kernels.dtype, [&]<class T>() { check_case<T, T>(kernels, c, algorithm); });
}

}  // namespace

TEST(sizes_around_a_tile) {
  //         batch heads kv queries keys dim value_dim
  check_all({{1, 1, 1, 1, 1, 1, 1}});
  check_next({{1, 2, 1, 15, 17, 16, 16}});
  check_next({{2, 2, 2, 16, 16, 17, 15}});
  check_all({{1, 1, 1, 17, 37, 33, 8}});
}

TEST(grouped_heads) {
  check_next({{2, 4, 2, 5, 19, 8, 8}});  // h / 2 is not h % 2
}

TEST(masks) {
  check_next({{1, 1, 1, 20, 20, 8, 8}, {-1, 0}});
  check_all({{1, 1, 1, 11, 5, 8, 8}, {-1, 0}});  // rows that see nothing
  check_next({{1, 1, 1, 9, 35, 8, 8}, {3, 2}});
}

TEST(lengths_and_what_lies_behind_them) {
  Case c{{3, 1, 1, 9, 21, 8, 8}, {-1, 0}};
  c.queries = {9, 0, 7}, c.keys = {21, 13, 0}, c.data = hidden_nan;
  check_all(c);
  c.data = normal, c.keys = {5, 21, 17}, c.offsets = {0, 4, -3};
  check_next(c);
}

TEST(hard_numbers) {
  Case c{{1, 1, 1, 5, 70, 16, 16}};
  c.data = growing;
  check_all(c);
  c.data = huge;
  check_next(c), check_next(c);
  c.data = normal, c.scale = -0.5;
  check_next(c), check_next(c);
}

TEST(options_with_every_algorithm) {
  for (Option option : options) {
    Case c{{2, 2, 1, 5, 19, 8, 5}};
    option(c);
    if (c.dropout.p > 0) continue;
    check_next(c), check_next(c);
  }
}

TEST(options_together) {
  size_t broadcast = 0;
  for (Dtype mask : {Dtype::boolean, Dtype::float64, Dtype::bfloat16, Dtype::float16})
    for (Data data : {normal, hidden_nan, partly_nan, nan_scores}) {
      Case c{{2, 3, 1, 5, 18, 4, 3}, {-1, 1}};
      c.masked = true, c.mask_dtype = mask, c.data = data;
      c.extends[broadcast++ % 4] = false;
      c.softcap = 2, c.slopes = c.sinks = true, c.strides = data == normal ? gaps : dense;
      check_next(c);
    }
}

TEST(partial_results) { check_all({{1, 2, 2, 3, 18, 8, 8}}, true); }

TEST(no_keys_and_no_values) {
  Case c{{1, 2, 1, 3, 0, 8, 8}};
  check_all(c);
  c.sinks = true;
  check_all(c);
  check_next({{1, 1, 1, 3, 4, 8, 0}});
  check_next({{0, 1, 1, 3, 4, 8, 8}});
}

TEST(the_order_of_warps_changes_nothing) {
  setenv("FANANO_EMULATOR_ORDER", "backward", 1);
  check_all({{1, 2, 1, 9, 19, 8, 8}});
  unsetenv("FANANO_EMULATOR_ORDER");
}
