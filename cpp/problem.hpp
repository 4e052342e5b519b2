// What was asked: plain structs, grouped by concept. A group's default value means "off".
//
// Arrays is the caller's side (unchecked descriptors, any rank); Problem is the kernels' side
// (checked, 4-D, strides in elements). A Description is the only way from one to the other, and
// every check is made there, once, in the words of refusals.hpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "math/host_device.hpp"

namespace fanano {

enum class Dtype : uint8_t { float64, float32, bfloat16, float16, boolean };  // the last: masks
enum class Algorithm : uint8_t { naive, safe, online, flash };
enum class Layout : uint8_t { bhsd, bshd };

// Bytes of one element.
FANANO_FN int64_t size_of(Dtype d) {
  return d == Dtype::float64 ? 8 : d == Dtype::float32 ? 4 : d == Dtype::boolean ? 1 : 2;
}

const char* name(Dtype);
const char* name(Algorithm);
const char* name(Layout);
Dtype accumulator(Dtype);             // float64 for float64, else float32
std::string dtype_or_partial(Dtype);  // "float16 or float32": what results of such inputs may be
Algorithm algorithm_named(const std::string&, const char* argument);  // throws ValueError
Layout layout_named(const std::string&);
Dtype dtype_named(const std::string&, const char* argument);

// ---- the kernels' side --------------------------------------------------------------------------

// One 4-D operand; strides in elements, not bytes. lse has column = 0.
struct Tensor {
  void* data = nullptr;
  int64_t batch = 0, head = 0, row = 0, column = 1;
};

inline constexpr int64_t max_dim = 576;  // of dim and value_dim

struct Shape {
  int64_t batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, dim = 0, value_dim = 0;
};

// Logit of query i, at position p, and key j: scale * (q_i . k_j), then softcap * tanh(logit /
// softcap), then - slope |p - j|, then + an additive mask. A sink is a logit without a value.
struct Score {
  double scale = 1;
  double softcap = 0;              // 0: none
  const double* slopes = nullptr;  // of ALiBi, one for each head; null: none
  int64_t slopes_batch = 0;        // stride
  const double* sinks = nullptr;   // one for each head; null: none
};

// Row i stands at key position p = i + offset; it may see p - left <= j <= p + right; a negative
// number means unbounded. Causal is right = 0.
struct Window { int64_t left = -1, right = -1; };

// Per-batch numbers, (batch,) each; null: every sequence is full, and the last query stands at the
// last key (the lower-right alignment).
struct Lengths {
  const int64_t* queries = nullptr;
  const int64_t* keys = nullptr;
  const int64_t* q_offset = nullptr;
};

// Which of the small arrays are in the memory of the device that computes, where nobody has looked
// at them; the others are in host memory.
struct OnDevice {
  bool queries = false, keys = false, q_offset = false, slopes = false, sinks = false;
};

// Of probabilities, by the pair's place among all pairs: this problem's first one stands at (batch,
// head, row, column). math/dropout.hpp says what is kept.
struct Dropout {
  double p = 0;  // 0: off
  uint64_t seed = 0;
  int64_t batch = 0, head = 0, row = 0, column = 0;
  const uint64_t* device_seed = nullptr;   // read where the kernels run, in place of seed
  const uint32_t* device_place = nullptr;  // there, too: four, added to batch, head, row, column
};

// What backward reads beside a problem's out and lse, and what it writes. An element of dbias
// belongs to all pairs that the mask was broadcast to: one sequence, head, query and key where
// `bias` says so, else all of them.
struct Gradient {
  Tensor dout;  // of out_dtype, as out
  Tensor dlse;  // accumulator(dtype); data null: lse is in no use
  Tensor dq, dk, dv;
  bool bias = false, sinks = false;  // whether these gradients are asked for
  bool bias_batch = false, bias_head = false, bias_row = false, bias_column = false;
  Tensor dbias;   // mask_dtype
  Tensor dsinks;  // accumulator(dtype), by head
};

struct Problem {
  Dtype dtype = Dtype::float32;      // of q, k and v
  Dtype out_dtype = Dtype::float32;  // dtype, or float32 for partial results
  Algorithm algorithm = Algorithm::flash;
  Shape shape;
  Tensor q, k, v, out;
  Tensor lse;   // accumulator(dtype); data null: not asked for
  Tensor mask;  // the caller's, (batch, head, row, column) of queries and keys; data null: none
  Dtype mask_dtype = Dtype::boolean;  // boolean: true may attend; else it is added to the logits
  Score score;
  Window window;
  Lengths lengths;
  OnDevice on_device;
  Dropout dropout;
  Gradient gradient;  // of backward alone
};

// ---- the caller's side --------------------------------------------------------------------------

// An array as its library describes it. Strides in elements; neither strides nor data are read when
// the array is empty.
struct Array {
  void* data = nullptr;
  Dtype dtype = Dtype::float32;
  int ndim = 0;
  const int64_t* shape = nullptr;
  const int64_t* strides = nullptr;
  bool writable = true;
};

// (batch,) integers, or one integer for all (scalar). count < 0: not given. In host memory, or
// where the device is that computes: then one for each sequence, and nobody looks at them.
struct Integers {
  const int64_t* data = nullptr;
  int64_t count = -1;
  bool scalar = false;
  bool on_device = false;
  bool given() const { return count >= 0; }
};

// Numbers for each head, (heads,), or for each head of each sequence, (batch, heads); a single one
// stands for all. data null: not given. on_device: as above, and never a single one.
struct Reals {
  const double* data = nullptr;
  int ndim = 0;
  int64_t shape[2] = {};
  bool on_device = false;
};

struct Request {
  Array query, key, value;
  const Array* out = nullptr;        // null: named later by write_to(), or the plan alone is wanted
  const Array* lse = nullptr;        // null: not asked for
  Dtype out_dtype = Dtype::float32;  // read only when has_out_dtype; else out's, or the inputs'
  bool has_out_dtype = false;
  double scale = 0;  // read only when has_scale; else 1/sqrt(dim)
  bool has_scale = false;
  double softcap = 0;  // 0: none
  bool is_causal = false;
  Window window;
  const Array* attn_mask = nullptr;  // null: none
  Reals alibi_slopes, sinks;
  Integers q_offset, q_lengths, kv_lengths;
  Dropout dropout;
  bool has_seed = false;
  Layout layout = Layout::bhsd;
  Algorithm algorithm = Algorithm::flash;
};

// The numbers of sequences and of heads, and whether as many numbers were given; all are checked
// again with the whole request. For those who must copy the numbers first.
int64_t batch_of(const Array& query, Layout);
int64_t heads_of(const Array& query, Layout);
void check_count(const Integers&, const char* argument, int64_t batch);
void check_reals(const Reals&, const char* argument, int64_t batch, int64_t heads, bool batches);

// The checks of the ladder's other steps: softmax (its axis counted from the front, its algorithm
// one of three), absorb, merge_states.
Algorithm softmax_algorithm_named(const std::string&);
int softmax_axis(const Array& x, int64_t axis);
void check_scores(const Array& x);
void check_merge(const Array& out_a, const Array& lse_a, const Array& out_b, const Array& lse_b);

// What backward reads beside the arrays of a request: out and lse as attention gave them, and the
// gradients by them.
struct Upstream {
  Array dout, out, lse;
  const Array* dlse = nullptr;  // null: zeros
  bool grad_mask = false;       // whether dbias is asked for
};

// What it writes; null: not asked for.
struct GradientArrays {
  const Array *dq = nullptr, *dk = nullptr, *dv = nullptr;  // as query, key, value
  const Array* dbias = nullptr;                             // as attn_mask
  const Array* dsinks = nullptr;                            // (heads,)
};

struct Extents {
  int ndim = 0;
  int64_t size[4] = {};
};

// A checked problem together with the small per-batch arrays that its Lengths point into.
// The request's arrays must outlive it; their data is looked at by the kernels alone.
class Description {
 public:
  explicit Description(const Request&);  // throws TypeError or ValueError naming the argument
  Description(const Description&) = delete;
  ~Description();

  // Names the destination, whose memory is checked here. The constructor does it where the request
  // has an out; without one the problem has shapes only: good for a plan, not for forward().
  void write_to(const Array& out, const Array* lse = nullptr);

  // The same for backward, in this order: what is asked for (enough for a plan), what it reads (and
  // asks for), and where it writes.
  void differentiate(bool grad_mask);
  void read(const Upstream&);
  void write_to(const GradientArrays&);

  const Problem& problem() const { return problem_; }
  Extents out_shape() const;  // in the layout and rank of query
  Extents lse_shape() const;  // out_shape() without its last axis, heads before rows

 private:
  void copy_reals();

  Problem problem_;
  Request request_;
  Upstream upstream_;
  std::unique_ptr<int64_t[]> numbers_;  // owns the three (batch,) arrays
  std::vector<double> slopes_, sinks_;
};

}  // namespace fanano
