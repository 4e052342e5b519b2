#include "plan.hpp"

#include <algorithm>
#include <cstdio>

#include "cpu/isa.hpp"
#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "errors.hpp"
#include "math/mask.hpp"

namespace fanano {

namespace {

// Rows that share one pass over K and V. More rows save conversions and cache traffic; fewer leave
// more tasks for the threads.
constexpr int64_t most_rows = 512;
constexpr int64_t tasks_per_thread = 16;

// Below this a second thread takes longer to wake than it saves (about 60 us against 100).
constexpr double parallel_work = 2e6;  // multiply-adds

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Machine this_machine(int max_threads) {
  int threads = get_num_threads();
  return {&chosen_isa(), max_threads > 0 ? std::min(threads, max_threads) : threads};
}

Plan make_plan(const Problem& p, const Machine& machine) {
  const Shape& s = p.shape;
  const Kernels& k = *machine.kernels;
  Plan plan;
  plan.kernels = machine.kernels;
  plan.algorithm = p.algorithm;
  plan.keys = k.tile_keys;

  int64_t strip = p.dtype == Dtype::float64 ? k.strip64 : k.strip32;
  int64_t heads = s.batch * s.heads;
  int64_t wanted = ceil_div(tasks_per_thread * machine.threads, std::max<int64_t>(heads, 1));
  int64_t rows = ceil_div(ceil_div(s.queries, wanted), strip) * strip;
  plan.rows = std::clamp(rows, strip, std::max(strip, most_rows / strip * strip));
  plan.tasks = heads * ceil_div(s.queries, plan.rows);

  double work = double(heads) * double(s.queries) * double(s.keys) * double(s.dim + s.value_dim);
  int64_t threads = work < parallel_work ? 1 : std::min<int64_t>(machine.threads, plan.tasks);
  plan.threads = int(std::max<int64_t>(threads, 1));

  bool flash = p.algorithm == Algorithm::flash;
  plan.scratch = (flash ? k.flash_scratch : k.materialised_scratch)(p, plan.rows);
  if (!flash && heads && s.queries && s.keys) {
    int64_t bytes = size_of(accumulator(p.dtype));
    for (int64_t factor : {heads, s.queries, s.keys})
      if (__builtin_mul_overflow(bytes, factor, &bytes)) refuse("scores_memory", name(p.algorithm));
    plan.workspace = bytes;
  }
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

std::string to_string(const Plan& plan, const Problem& p) {
  const Shape& s = p.shape;
  auto number = [](int64_t n) { return std::to_string(n); };
  bool flash = plan.algorithm == Algorithm::flash;
  std::string text = "attention forward on the CPU";
  text += "\n  problem    batch " + number(s.batch) + ", heads " + number(s.heads) + " over " +
          number(s.kv_heads) + ", queries " + number(s.queries) + ", keys " + number(s.keys) +
          ", dim " + number(s.dim) + ", value dim " + number(s.value_dim) + ", " + name(p.dtype);
  std::string options;
  auto option = [&](bool given, const char* word) {
    if (given) options += (options.empty() ? "" : ", ") + std::string(word);
  };
  option(p.window.right == 0 && p.window.left < 0, "causal");
  option(p.window.left >= 0 || p.window.right > 0, "window");
  option(p.lengths.queries || p.lengths.keys, "lengths");
  option(p.score.softcap != 0, "softcap");
  option(p.score.slopes, "ALiBi");
  option(p.mask.data, p.mask_dtype == Dtype::boolean ? "boolean mask" : "additive mask");
  option(p.score.sinks, "sinks");
  if (!options.empty()) text += "\n  options    " + options;
  text += "\n  algorithm  " + std::string(name(plan.algorithm)) +
          (flash ? ": tiles stream through, linear memory" : " softmax over materialised scores");
  text += "\n  kernels    " + std::string(plan.kernels->isa);
  text += "\n  tiles      " + number(plan.rows) + " query rows x " + number(plan.keys) + " keys";
  text += "\n  threads    " + number(plan.threads) + ", " + number(plan.tasks) + " tasks";
  text += "\n  memory     " + in_words(plan.scratch) + " of scratch for each thread";
  text += flash ? ", no scores" : ", " + in_words(plan.workspace) + " for all scores";
  return text;
}

}  // namespace fanano
