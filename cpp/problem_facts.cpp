#include "problem_facts.hpp"

#include <cfloat>

#include "errors.hpp"

namespace fanano {

std::string shape_words(const Problem& p) {
  const Shape& s = p.shape;
  auto number = [](int64_t n) { return std::to_string(n); };
  return "batch " + number(s.batch) + ", heads " + number(s.heads) + " over " + number(s.kv_heads) +
         ", queries " + number(s.queries) + ", keys " + number(s.keys) + ", dim " + number(s.dim) +
         ", value dim " + number(s.value_dim) + ", " + name(p.dtype);
}

std::string option_words(const Problem& p) {
  std::string words;
  auto option = [&](bool given, const char* word) {
    if (given) words += (words.empty() ? "" : ", ") + std::string(word);
  };
  option(p.window.right == 0 && p.window.left < 0, "causal");
  option(p.window.left >= 0 || p.window.right > 0, "window");
  option(p.lengths.queries || p.lengths.keys, "lengths");
  option(p.score.softcap != 0, "softcap");
  option(p.score.slopes, "ALiBi");
  option(p.mask.data, p.mask_dtype == Dtype::boolean ? "boolean mask" : "additive mask");
  option(p.score.sinks, "sinks");
  option(p.dropout.p > 0, "dropout");
  return words;
}

double largest_sink(const Problem& p) {
  return (accumulator(p.dtype) == Dtype::float64 ? DBL_MAX : FLT_MAX) / 8;
}

int64_t scores_bytes(const Problem& p) {
  const Shape& s = p.shape;
  int64_t bytes = size_of(accumulator(p.dtype));
  if (s.batch == 0 || s.heads == 0 || s.queries == 0 || s.keys == 0) return 0;
  for (int64_t factor : {s.batch, s.heads, s.queries, s.keys})
    if (__builtin_mul_overflow(bytes, factor, &bytes)) refuse("scores_memory", name(p.algorithm));
  return bytes;
}

}  // namespace fanano
