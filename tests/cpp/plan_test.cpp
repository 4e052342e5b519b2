#include "plan.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "check.hpp"
#include "cpu/isa.hpp"
#include "errors.hpp"

using namespace fanano;

namespace {

Problem problem(Shape shape, Dtype dtype = Dtype::float32, Algorithm algorithm = Algorithm::flash) {
  Problem p;
  p.shape = shape;
  p.dtype = p.out_dtype = dtype;
  p.algorithm = algorithm;
  return p;
}

// A plan asks the kernels how much scratch they need, and they answer in their own instructions.
std::vector<const Kernels*> runnable_isas() {
  std::vector<const Kernels*> list;
  for (const Kernels* k : compiled_isas())
    if (runnable(*k)) list.push_back(k);
  return list;
}

const Shape usual = {2, 8, 2, 300, 500, 64, 64};

}  // namespace

TEST(tasks_cover_all_rows_once) {
  for (const Kernels* k : runnable_isas())
    for (Dtype dtype : {Dtype::float64, Dtype::float32, Dtype::bfloat16})
      for (Algorithm algorithm : {Algorithm::flash, Algorithm::safe})
        for (int64_t queries : {17, 64, 300, 5000})
          for (int64_t group : {1, 4, 71})
            for (int threads : {1, 2, 64}) {
              Problem p = problem({2, 2 * group, 2, queries, 500, 64, 64}, dtype, algorithm);
              p.window.right = queries % 2 - 1;
              const Plan plan = make_plan(p, {k, threads});
              int64_t strip = dtype == Dtype::float64 ? k->strip64 : k->strip32;
              CHECK(plan.rows >= 1 && plan.rows % strip == 0);
              CHECK(plan.heads >= 1 && plan.heads <= (algorithm == Algorithm::flash ? group : 1));
              CHECK(plan.threads >= 1 && plan.threads <= threads && plan.threads <= plan.tasks);
              CHECK(plan.keys == k->tile_keys);
              std::vector<int> seen(4 * group * queries);
              for (int64_t task = 0; task < plan.tasks; ++task) {
                const Rows x = rows_of(p, plan, task);
                CHECK(x.heads >= 1 && x.heads <= plan.heads && x.of_each.size() <= plan.rows);
                for (int64_t h = x.head; h < x.head + x.heads; ++h) {
                  CHECK(h / group == x.kv_head);
                  for (int64_t i = x.of_each.begin; i < x.of_each.end; ++i)
                    ++seen[(x.batch * 2 * group + h) * queries + i];
                }
              }
              CHECK(std::count(seen.begin(), seen.end(), 1) == int64_t(seen.size()));
            }
}

TEST(heads_of_a_group_share_a_block) {
  for (const Kernels* k : runnable_isas())
    for (Dtype dtype : {Dtype::float64, Dtype::float32, Dtype::bfloat16}) {
      auto plan_of = [&](int64_t heads, int64_t kv_heads, int64_t queries) {
        return make_plan(problem({1, heads, kv_heads, queries, 500, 64, 64}, dtype), {k, 1});
      };
      const int64_t most = std::string(k->isa) == "amx" && dtype != Dtype::float64 ? 1024 : 512;
      for (auto [heads, kv_heads, queries] : {std::array<int64_t, 3>{32, 8, 5120}, {8, 1, 5120}}) {
        Plan plan = plan_of(heads, kv_heads, queries);
        CHECK(plan.heads == heads / kv_heads && plan.heads * plan.rows == most);
      }
      Plan many = plan_of(128, 1, 5120), few = plan_of(128, 1, 20), uneven = plan_of(70, 2, 64);
      CHECK(many.rows == 64 && many.heads == most / 64);
      CHECK(few.rows >= 20 && few.rows <= 64 && few.heads * few.rows <= most && few.heads >= 5);
      CHECK(uneven.heads < 35 && uneven.heads * ((35 + uneven.heads - 1) / uneven.heads) - 35 < 5);
      CHECK(plan_of(32, 32, 5120).heads == 1);
    }
}

TEST(blocks_share_keys_while_threads_have_tasks) {
  for (const Kernels* k : runnable_isas())
    for (Dtype dtype : {Dtype::float64, Dtype::float32, Dtype::bfloat16}) {
      auto rows = [&](int64_t heads, int64_t queries, int64_t dim, int threads) {
        Shape shape{1, heads, heads, queries, 500, dim, dim};
        return make_plan(problem(shape, dtype), {k, threads}).rows;
      };
      bool tiles = std::string(k->isa) == "amx" && dtype != Dtype::float64;
      int64_t strip = dtype == Dtype::float64 ? k->strip64 : k->strip32;
      CHECK(rows(64, 5120, 40, 1) == (tiles ? 1024 : 512));
      CHECK(rows(64, 5120, 576, 1) == 512);              // more would not stay in the cache
      CHECK(rows(1, 512, 64, 1) == (tiles ? 256 : 64));  // two tasks, or eight
      CHECK(rows(1, 512, 64, 16) == std::max<int64_t>(strip, tiles ? 32 : 1));
    }
}

TEST(teams_cover_all_heads_once) {
  for (int64_t queries : {1, 3, 16})
    for (int64_t heads : {1, 2, 12, 30, 200})
      for (int64_t kv_heads : {1, 2, 5}) {
        if (heads % kv_heads) continue;
        Problem p = problem({3, heads, kv_heads, queries, 700, 64, 64});
        int64_t next = 0;
        for (int64_t i = 0; i < teams_of(p.shape); ++i) {
          Team t = team_of(p, 2, i);
          CHECK(t.batch == 2 && t.head == next && t.heads >= 1 && t.queries == queries);
          for (int64_t h = t.head; h < t.head + t.heads; ++h)
            CHECK(h / (heads / kv_heads) == t.kv_head);
          CHECK(t.heads * queries <= t.most_rows && t.most_rows <= decode_rows);
          next += t.heads;
        }
        CHECK(next == heads);
      }
}

TEST(few_queries_are_decoded) {
  for (const Kernels* k : runnable_isas()) {
    Shape shape = usual;
    for (int64_t queries : {1, 16, 17}) {
      shape.queries = queries;
      Plan plan = make_plan(problem(shape), {k, 1});
      CHECK(plan.decode == (queries <= 16) && plan.splits == 1 && plan.workspace == 0);
      if (plan.decode) CHECK(plan.tasks == 2 * teams_of(shape) && plan.keys == k->decode_keys);
      CHECK(!make_plan(problem(shape, Dtype::float32, Algorithm::safe), {k, 1}).decode);
    }
  }
}

TEST(keys_are_split_where_there_are_fewer_teams_than_threads_want) {
  const Kernels* k = &chosen_isa();
  Shape shape = {1, 8, 1, 1, 100000, 64, 64};
  Plan alone = make_plan(problem(shape), {k, 1}), split = make_plan(problem(shape), {k, 4});
  CHECK(alone.splits == 1 && alone.tasks == 1 && alone.threads == 1);
  CHECK(split.splits == (100000 + 511) / 512 && split.tasks == 1 && split.threads == 4);
  // A state is some numbers for each row, here of 8: 1/64 of the 512 keys that it is of, and more.
  CHECK(split.workspace > 0 && split.workspace < 100000 * 64 * 4 / 50);
  shape.batch = 64;
  CHECK(make_plan(problem(shape), {k, 4}).splits == 1);
  shape.batch = 1, shape.keys = 20;
  CHECK(make_plan(problem(shape), {k, 4}).threads == 1);
}

TEST(states_of_splits_are_bounded) {
  const Kernels* k = &chosen_isa();
  for (int64_t keys : {int64_t(1) << 16, int64_t(1) << 22, int64_t(1) << 40, int64_t(1) << 50}) {
    Plan plan = make_plan(problem({1, 1016, 1, 16, keys, 1, 576}), {k, 64});
    CHECK(plan.decode && plan.workspace >= 0 && plan.workspace <= 64 << 20);
    CHECK((plan.workspace == 0) == (plan.splits == 1));
  }
}

TEST(nothing_to_do_is_no_tasks) {
  for (int64_t Shape::* size : {&Shape::batch, &Shape::heads, &Shape::queries}) {
    Shape shape = usual;
    shape.*size = 0;
    if (size == &Shape::heads) shape.kv_heads = 0;
    CHECK(make_plan(problem(shape), {&chosen_isa(), 4}).tasks == 0);
  }
}

TEST(flash_needs_no_memory_for_scores) {
  Shape shape = usual;
  int64_t scratch = 0;
  for (int64_t n : {100000, 1000000, 100000000}) {
    shape.queries = shape.keys = n;
    Plan plan = make_plan(problem(shape), {&chosen_isa(), 4});
    CHECK(plan.workspace == 0);
    CHECK(scratch == 0 || plan.scratch == scratch);  // a constant for each thread
    scratch = plan.scratch;
  }
}

TEST(backward_splits_sums_where_key_heads_are_few) {
  for (const Kernels* k : runnable_isas())
    for (int threads : {1, 2, 64})
      for (int64_t batch : {1, 100}) {
        Shape shape = usual;
        shape.batch = batch;
        BackwardPlan plan = make_backward_plan(problem(shape), {k, threads});
        int64_t key_heads = batch * shape.kv_heads;
        bool few = threads > 1 && key_heads < 4 * threads;
        bool split =
            few && (key_heads < threads || key_heads * 5 * k->key_sums(problem(shape)) <= 64 << 20);
        CHECK(plan.split == split);
        CHECK(plan.sums == 5);  // two passes of four heads, each a sum later than the last
        CHECK(plan.row_tasks == batch * shape.heads * 5);
        CHECK(plan.key_tasks == batch * shape.kv_heads * (split ? plan.sums : 1));
        CHECK(plan.add_tasks == (split ? batch * shape.kv_heads * 4 : 0));
        CHECK(plan.bias_tasks == 0 && plan.sink_tasks == 0);
        CHECK(plan.workspace >= plan.row_bytes);
      }
}

TEST(a_task_of_dbias_is_a_tile_of_the_mask) {
  float element;
  for (int axes = 0; axes < 16; ++axes) {
    Problem p = problem(usual);
    Gradient& g = p.gradient;
    g.bias = true, p.mask.data = &element;
    g.bias_batch = axes & 1, g.bias_head = axes & 2, g.bias_row = axes & 4;
    g.bias_column = axes & 8;
    int64_t tiles =
        (axes & 1 ? 2 : 1) * (axes & 2 ? 8 : 1) * (axes & 4 ? 5 : 1) * (axes & 8 ? 4 : 1);
    CHECK(make_backward_plan(p, {&chosen_isa(), 2}).bias_tasks == tiles);
  }
}

TEST(backward_needs_memory_in_proportion_to_the_sequence) {
  for (int threads : {1, 2}) {
    Shape shape = {1, 1, 1, 20000, 20000, 64, 64};
    BackwardPlan one = make_backward_plan(problem(shape), {&chosen_isa(), threads});
    shape.queries = shape.keys = 40000;
    BackwardPlan two = make_backward_plan(problem(shape), {&chosen_isa(), threads});
    CHECK(two.workspace + two.scratch <= 2 * (one.workspace + one.scratch));
  }
}

TEST(threads_without_a_task_of_backward_have_no_sums) {
  Shape shape = {1, 1, 1, 200, 20000, 64, 64};  // one pass: nothing to split
  BackwardPlan few = make_backward_plan(problem(shape), {&chosen_isa(), 2});
  BackwardPlan many = make_backward_plan(problem(shape), {&chosen_isa(), 1024});
  CHECK(!many.split && many.key_threads == 1 && many.threads <= 4);
  CHECK(many.key_scratch == few.key_scratch && many.key_scratch > 2 * 20000 * 64 * 4);
  CHECK(many.scratch < 1 << 20 && many.workspace == few.workspace);
}

TEST(sums_of_backward_that_no_thread_waits_for_are_bounded) {
  Shape shape = {1, 8, 8, 4096, 1 << 17, 128, 128};
  BackwardPlan enough = make_backward_plan(problem(shape), {&chosen_isa(), 8});
  CHECK(!enough.split && enough.workspace == enough.row_bytes);
  CHECK(make_backward_plan(problem(shape), {&chosen_isa(), 16}).split);
  shape.keys = int64_t(1) << 50;
  CHECK(!make_backward_plan(problem(shape), {&chosen_isa(), 16}).split);
}

TEST(the_others_store_all_scores) {
  for (Algorithm a : {Algorithm::naive, Algorithm::safe, Algorithm::online}) {
    CHECK(make_plan(problem(usual, Dtype::bfloat16, a), {&chosen_isa(), 2}).workspace ==
          2 * 8 * 300 * 500 * 4);
    CHECK(make_plan(problem(usual, Dtype::float64, a), {&chosen_isa(), 2}).workspace ==
          2 * 8 * 300 * 500 * 8);
    Shape shape = usual;
    shape.queries = shape.keys = int64_t(1) << 40;
    CHECK_THROWS(ValueError, "flash",
                 make_plan(problem(shape, Dtype::float32, a), {&chosen_isa(), 2}));
  }
}

TEST(a_plan_says_what_it_is) {
  for (const Kernels* k : runnable_isas()) {
    Problem p = problem(usual, Dtype::float16);
    std::string text = to_string(make_plan(p, {k, 2}), p);
    for (std::string word : {k->isa, "flash", "float16", "300", "500", "threads", "scratch"})
      CHECK(text.find(word) != std::string::npos);
  }
}
