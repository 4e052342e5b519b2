// What the functions of the module do: arguments in, a checked problem, the core without the GIL,
// results out.
//
// `empty(shape, dtype)` makes a result in the caller's library once its shape is known to be right;
// dtype is one of the core's four names. Of arrays on a CUDA device it is empty(shape, dtype,
// device, stream), both numbers. None: the DLPack exchange of the inputs' type makes it.
//
// `stream`: what the caller's library has on the device of query for its current stream, a number
// as of DLPack; None: the arrays say it, or it is the legacy default stream.
#pragma once

#include <string>
#include <vector>

#include "attention.hpp"
#include "tensors.hpp"

namespace fanano {

// The options that attention and explain share, unconverted.
struct Options {
  nb::handle attn_mask, is_causal, window_size, q_offset, scale, softcap, alibi_slopes, sinks,
      dropout_p, seed, dropout_offset, q_lengths, kv_lengths, layout, algorithm, out_dtype;
};

// What a plan of either pass says of itself.
struct ExplainedPlan {
  bool backward;
  const char *isa, *algorithm;
  int64_t heads, rows, keys, tasks;
  int threads;
  int64_t scratch, workspace;
  std::string text;
};

using Pair = nb::typed<nb::tuple, nb::object, nb::object>;
using Five = nb::typed<nb::tuple, nb::object, nb::object, nb::object, nb::object, nb::object>;

nb::object attention(nb::handle query, nb::handle key, nb::handle value, nb::handle out,
                     nb::handle empty, nb::handle return_lse, const Options&, int max_threads,
                     nb::handle stream);
// (dq, dk, dv, dbias, dsinks), the last two None where not asked for or not there.
Five attention_backward(nb::handle dout, nb::handle query, nb::handle key, nb::handle value,
                        nb::handle out, nb::handle lse, nb::handle dlse, nb::handle empty,
                        nb::handle grad_mask, const Options&, int max_threads, nb::handle stream);
ExplainedPlan explain(nb::handle query, nb::handle key, nb::handle value, const Options&,
                      nb::handle backward, nb::handle grad_mask, int max_threads);
ExplainedPlan explain_shapes(nb::handle query, nb::handle key, nb::handle value, nb::handle dtype,
                             const Options&, nb::handle backward, nb::handle grad_mask,
                             int max_threads);

nb::object softmax(nb::handle x, nb::handle axis, nb::handle algorithm, nb::handle empty,
                   int max_threads);
uint64_t read(nb::handle x);
OnlineSoftmax<double> absorb(OnlineSoftmax<double>, nb::handle scores);
Pair merge_states(nb::handle out_a, nb::handle lse_a, nb::handle out_b, nb::handle lse_b,
                  nb::handle empty, int max_threads);

}  // namespace fanano
