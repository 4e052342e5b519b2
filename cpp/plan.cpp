#include "plan.hpp"

#include <algorithm>
#include <cstdio>

#include "cpu/isa.hpp"
#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "errors.hpp"
#include "math/mask.hpp"
#include "problem_facts.hpp"

namespace fanano {

namespace {

// Rows that share one pass over K and V. More rows save conversions and cache traffic; fewer leave
// more tasks for the threads. More than so many only where the block's q and o are so small that
// the second-level cache keeps them.
constexpr int64_t usual_rows = 512;
constexpr int64_t most_block_bytes = 1 << 20;
constexpr int64_t tasks_per_thread = 8;

// Rows that a head has together, if it has as many: of fewer, the memory of many heads meets in the
// same lines of the cache.
constexpr int64_t least_rows_of_head = 64;

// With fewer teams, their keys are split: a thread that has none left must find something to do.
constexpr int64_t teams_per_thread = 4;

// Bytes of the states that split keys may leave, of all teams together; and of backward's sums.
constexpr int64_t most_states = 64 << 20;

// With fewer key heads, what each of them sums up in backward is split.
constexpr int64_t key_heads_per_thread = 4;

// Below this a second thread takes longer to wake than it saves (about 60 us against 100).
constexpr double parallel_work = 2e6;  // multiply-adds

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Machine this_machine(int max_threads) {
  int threads = get_num_threads();
  return {&chosen_isa(), max_threads > 0 ? std::min(threads, max_threads) : threads};
}

static Plan plan_decode(const Problem& p, const Machine& machine, Plan plan) {
  const Shape& s = p.shape;
  const Kernels& k = *machine.kernels;
  plan.decode = true;
  plan.heads = heads_together(s), plan.rows = s.queries;
  plan.keys = k.decode_keys;
  plan.tasks = s.batch * teams_of(s);
  plan.scratch = k.decode_scratch(p);
  // Where the states would take more memory than that, one thread folds each team's as it goes.
  int64_t splits = ceil_div(s.keys, decode_chunk), bytes = k.decode_state(p);
  bool few = plan.threads > 1 && splits > 1 && plan.tasks < teams_per_thread * plan.threads;
  for (int64_t factor : {plan.tasks, splits})
    if (__builtin_mul_overflow(bytes, factor, &bytes)) few = false;
  if (few && bytes <= most_states) plan.splits = splits, plan.workspace = bytes;
  plan.threads = int(std::min<int64_t>(plan.threads, plan.tasks * plan.splits));
  return plan;
}

static RowLimits row_limits(const Problem& p, const Kernels& k, int64_t strip) {
  if (p.algorithm != Algorithm::flash) return {1, usual_rows};
  RowLimits limits = k.row_limits(p);
  int64_t of_strip = k.flash_scratch(p, 2 * strip) - k.flash_scratch(p, strip);
  if (limits.most / strip * of_strip > most_block_bytes) limits.most = usual_rows;
  return limits;
}

Plan make_plan(const Problem& p, const Machine& machine) {
  const Shape& s = p.shape;
  const Kernels& k = *machine.kernels;
  Plan plan;
  plan.kernels = machine.kernels;
  plan.algorithm = p.algorithm;
  plan.keys = k.tile_keys;

  double work = double(s.batch) * double(s.heads) * double(s.queries) * double(s.keys) *
                double(s.dim + s.value_dim);
  plan.threads = work < parallel_work ? 1 : machine.threads;
  if (s.batch == 0 || s.heads == 0 || s.queries == 0) return plan;
  bool flash = p.algorithm == Algorithm::flash;
  if (flash && s.queries <= decode_queries) return plan_decode(p, machine, plan);

  // Rows of the group of heads that a key head has, and of each head of as many as share a task:
  // that, of the same number of rows, the fewest keys lie beyond a diagonal.
  int64_t strip = p.dtype == Dtype::float64 ? k.strip64 : k.strip32;
  int64_t group = flash ? s.heads / s.kv_heads : 1, key_heads = s.batch * s.heads / group;
  int64_t wanted = ceil_div(tasks_per_thread * machine.threads, key_heads);
  int64_t of_thread = ceil_div(machine.threads, key_heads);
  const RowLimits limits = row_limits(p, k, strip);
  int64_t rows = std::max(ceil_div(group * s.queries, wanted),
                          std::min(limits.least, ceil_div(group * s.queries, of_thread)));
  int64_t strips = std::clamp<int64_t>(ceil_div(rows, strip), 1, limits.most / strip);
  int64_t of_head = ceil_div(s.queries, strip);  // strips, too
  int64_t most_heads = strips / std::min(of_head, ceil_div(least_rows_of_head, strip));
  plan.heads = ceil_div(group, ceil_div(group, std::clamp<int64_t>(most_heads, 1, group)));
  int64_t blocks = ceil_div(of_head, strips / plan.heads);
  plan.rows = ceil_div(of_head, blocks) * strip;
  plan.tasks = key_heads * ceil_div(group, plan.heads) * blocks;

  plan.threads = int(std::min<int64_t>(plan.threads, plan.tasks));

  plan.scratch = (flash ? k.flash_scratch : k.materialised_scratch)(p, plan.heads * plan.rows);
  if (flash && p.lengths.queries) plan.scratch = std::max(plan.scratch, k.decode_scratch(p));
  if (!flash) plan.workspace = scores_bytes(p);
  return plan;
}

BackwardPlan make_backward_plan(const Problem& p, const Machine& machine) {
  const Shape& s = p.shape;
  const Gradient& g = p.gradient;
  const Kernels& k = *machine.kernels;
  BackwardPlan plan;
  plan.kernels = machine.kernels;
  plan.rows = k.pass_rows(p), plan.keys = k.tile_keys;
  int64_t rows = p.dtype == Dtype::float64 ? block_rows<double> : block_rows<float>;
  int64_t blocks = ceil_div(s.queries, rows), tiles = ceil_div(s.keys, k.tile_keys);

  // Heads of a group start at sums one apart, so that few rows of many heads are dealt out, too.
  plan.key_heads = s.batch * s.kv_heads;
  if (plan.key_heads) {
    int64_t passes = ceil_div(s.queries, plan.rows), group = s.heads / s.kv_heads;
    plan.sums = std::clamp<int64_t>(group + passes - 1, 1, most_sums);
  }
  double work = double(s.batch) * double(s.heads) * double(s.queries) * double(s.keys) *
                double(s.dim + s.value_dim);
  int threads = work < parallel_work ? 1 : machine.threads;
  plan.split = threads > 1 && plan.sums > 1 && plan.key_heads < key_heads_per_thread * threads;
  if (plan.split) {
    // As long as there is a key head for each thread, splitting is worth some memory, not any.
    int64_t bytes = plan.sum_bytes = k.key_sums(p);
    bool huge = false;
    for (int64_t factor : {plan.key_heads, plan.sums})
      huge |= __builtin_mul_overflow(bytes, factor, &bytes);
    plan.split = !huge && (plan.key_heads < threads || bytes <= most_states);
    if (!plan.split) plan.sum_bytes = 0;
  }

  plan.row_tasks = s.batch * s.heads * blocks;
  plan.key_tasks = plan.key_heads * (plan.split ? plan.sums : 1);
  plan.add_tasks = plan.split ? plan.key_heads * tiles : 0;
  if (g.bias)
    plan.bias_tasks = (g.bias_batch ? s.batch : 1) * (g.bias_head ? s.heads : 1) *
                      (g.bias_row ? blocks : 1) * (g.bias_column ? tiles : 1);
  if (g.sinks) plan.sink_tasks = s.heads;
  plan.threads = int(std::clamp<int64_t>(
      std::max({plan.row_tasks, plan.key_tasks, plan.add_tasks, plan.bias_tasks, plan.sink_tasks}),
      1, threads));
  plan.key_threads = int(std::clamp<int64_t>(plan.key_tasks, 1, plan.threads));

  plan.key_scratch = k.backward_scratch(p, plan);
  BackwardPlan without_sums = plan;
  without_sums.split = true;
  plan.scratch = k.backward_scratch(p, without_sums);
  plan.row_bytes = k.row_numbers(p);
  plan.workspace = plan.row_bytes + plan.key_tasks * plan.sum_bytes;
  return plan;
}

static std::string in_words(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double size = double(bytes);
  int unit = 0;
  for (; size >= 1024 && unit < 6; ++unit) size /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit ? "%.1f %s" : "%.0f %s", size, units[unit]);
  return text;
}

static std::string number(int64_t n) { return std::to_string(n); }

static std::string heading(const char* pass, const Problem& p) {
  std::string text = "attention " + std::string(pass) + " on the CPU";
  text += "\n  problem    " + shape_words(p);
  const std::string options = option_words(p);
  return options.empty() ? text : text + "\n  options    " + options;
}

std::string to_string(const Plan& plan, const Problem& p) {
  bool flash = plan.algorithm == Algorithm::flash;
  std::string text = heading("forward", p);
  text += "\n  algorithm  " + std::string(name(plan.algorithm)) +
          (!flash        ? " softmax over materialised scores"
           : plan.decode ? ": all rows of a key head pass its keys together (decode)"
                         : ": tiles stream through, linear memory");
  text += "\n  kernels    " + std::string(plan.kernels->isa);
  text += "\n  tiles      ";
  if (plan.heads > 1) text += number(plan.heads) + " heads x ";
  text += number(plan.rows) + " query rows x " + number(plan.keys) + " keys";
  text += "\n  threads    " + number(plan.threads) + ", " + number(plan.tasks) + " tasks";
  if (plan.splits > 1) text += " x " + number(plan.splits) + " splits of the keys";
  text += "\n  memory     " + in_words(plan.scratch) + " of scratch for each thread";
  if (plan.workspace) text += ", " + in_words(plan.workspace) + " for all ";
  text += flash ? plan.workspace ? "states, no scores" : ", no scores" : "scores";
  return text;
}

std::string to_string(const BackwardPlan& plan, const Problem& p) {
  const Gradient& g = p.gradient;
  std::string text = heading("backward", p);
  text += "\n  algorithm  flash: P and dS are made again as tiles stream through, linear memory";
  text += "\n  kernels    " + std::string(plan.kernels->isa);
  text += "\n  tiles      " + number(plan.rows) + " query rows x " + number(plan.keys) + " keys";
  text += "\n  gradients  dq, dk, dv";
  if (g.bias) text += ", dbias (q k and dout v once more, " + number(plan.bias_tasks) + " tasks)";
  if (g.sinks) text += ", dsinks";
  text += "\n  sums       " + number(plan.sums) + " of dk and dv for each key head, added in order";
  text += "\n  threads    " + number(plan.threads) + ", " + number(plan.key_tasks) + " tasks";
  text += plan.split ? ", each one sum of a key head" : ", each a key head";
  text += "\n  memory     " + in_words(plan.scratch_bytes()) + " of scratch for each thread, " +
          in_words(plan.workspace) + " for all: ";
  text += plan.split ? "numbers of rows, and sums" : "numbers of rows";
  return text + "; no scores";
}

}  // namespace fanano
