// The gradients on the device, of every dtype, shape and option, by the kernel that a caller gets,
// against an oracle in wider arithmetic.
#include "attention_options.hpp"
#include "device_gradients.hpp"

using namespace attention_case;

namespace {

const Dtype dtypes[] = {Dtype::float64, Dtype::float32, Dtype::bfloat16, Dtype::float16};

void check_with(const Case& c, Dtype dtype, Wanted wanted = {}, bool partial = false) {
  device::with_type(dtype, [&]<class T>() {
    partial ? check_gradients<T, accumulator_t<T>>(c, dtype, wanted)
            : check_gradients<T, T>(c, dtype, wanted);
  });
}

void check_all(const Case& c, Wanted wanted = {}) {
  for (Dtype dtype : dtypes) check_with(c, dtype, wanted);
}

}  // namespace

TEST(sizes_around_a_tile) {
  check_all({{1, 1, 1, 1, 1, 1, 1}});
  check_all({{1, 1, 1, 31, 33, 16, 40}});
}
