// From the caller's arrays to the kernels' problem: defaults, axes and checks.
// The messages are tested one by one from Python.
#include "problem.hpp"

#include "check.hpp"
#include "errors.hpp"

using namespace fanano;

namespace {

struct Example {
  float memory[2 * 4 * 6 * 8] = {}, result[2 * 4 * 6 * 8] = {};
  int64_t shape[4] = {2, 4, 6, 8}, strides[4] = {192, 48, 8, 1};
  Array out;
  Request request;

  Example() {
    Array x = {memory, Dtype::float32, 4, shape, strides, true};
    request.query = request.key = request.value = x;
    out = x;
    out.data = result;
    request.out = &out;
  }
};

}  // namespace

TEST(names) {
  CHECK(name(Dtype::bfloat16) == std::string("bfloat16"));
  CHECK(size_of(Dtype::float64) == 8 && size_of(Dtype::float16) == 2);
  CHECK(accumulator(Dtype::float64) == Dtype::float64);
  CHECK(accumulator(Dtype::float16) == Dtype::float32);
  CHECK(algorithm_named("flash", "algorithm") == Algorithm::flash);
  CHECK(layout_named("bshd") == Layout::bshd);
  CHECK_THROWS(ValueError, "algorithm", algorithm_named("fast", "algorithm"));
  CHECK_THROWS(ValueError, "layout", layout_named("hbsd"));
}

TEST(defaults) {
  Example e;
  Description description(e.request);
  const Problem& p = description.problem();
  CHECK(p.shape.batch == 2 && p.shape.heads == 4 && p.shape.kv_heads == 4);
  CHECK(p.shape.queries == 6 && p.shape.keys == 6 && p.shape.dim == 8 && p.shape.value_dim == 8);
  CHECK_CLOSE(p.score.scale, 1 / std::sqrt(8.0), 1e-15);
  CHECK(p.window.left < 0 && p.window.right < 0);
  CHECK(!p.lse.data);
}

TEST(causal_is_a_window) {
  Example e;
  e.request.is_causal = true;
  Description description(e.request);
  CHECK(description.problem().window.right == 0);
  CHECK(description.problem().window.left < 0);
}

TEST(the_other_layout_swaps_rows_and_heads) {
  Example e;
  e.request.layout = Layout::bshd;
  Description description(e.request);
  const Problem& p = description.problem();
  CHECK(p.shape.queries == 4 && p.shape.heads == 6);
  CHECK(p.q.row == 48 && p.q.head == 8 && p.out.row == 48);
}

TEST(what_is_wrong_is_named) {
  Example e;
  int64_t other[4] = {2, 4, 6, 7};
  e.request.key.shape = other;
  CHECK_THROWS(ValueError, "key", Description{e.request});
  Example f;
  f.request.value.dtype = Dtype::float16;
  CHECK_THROWS(TypeError, "value", Description{f.request});
  Example g;
  g.request.has_scale = true;
  g.request.scale = NAN;
  CHECK_THROWS(ValueError, "scale", Description{g.request});
  Example h;
  h.out.data = h.memory;
  CHECK_THROWS(ValueError, "out", Description{h.request});
  Example i;
  i.out.writable = false;
  CHECK_THROWS(ValueError, "out", Description{i.request});
  Example j;
  int64_t lengths[] = {7, 6};
  j.request.kv_lengths = {lengths, 2, false};
  CHECK_THROWS(ValueError, "kv_lengths", Description{j.request});
}
