// Every error of the core, once: a row is a rule's error and its words. A check says
// refuse("id", ...) with the values of the row's blanks, from left to right (errors.hpp); the tests
// read the rows through fanano._core.refusals() and provoke each. What an array library alone can
// know is refused by its adapter (src/fanano/adapters/).
#pragma once

#include <string_view>

namespace fanano {

// Python's TypeError, ValueError, NotImplementedError, RuntimeError.
enum class Error { type, value, missing, runtime };

struct Refusal {
  std::string_view id;
  Error error;
  std::string_view text;  // "{...}" is a blank; its name is for readers
};

inline constexpr Refusal refusals[] = {
    // ---- numbers, words and lists (bindings/arguments.cpp) ----
    {"string", Error::type, "{argument} must be a string, got {type}"},
    {"printable", Error::value,
     "{argument} must be a name without NULs and surrogates, got {string}"},
    {"name", Error::value, "{argument} must be {names}, got \"{string}\""},
    {"flag", Error::type, "{argument} must be True or False, got {type}"},
    {"number", Error::type, "{argument} must be a number, got {type}"},
    {"float64", Error::value, "{argument} is out of the range of float64"},
    {"integer", Error::type, "{argument} must be an integer, got {type}"},
    {"int64", Error::value, "{argument} is {integer}, which does not fit in 64 bits"},
    {"extents", Error::type, "{argument} must be a tuple of integers, got {type}"},
    {"pair", Error::type, "{argument} must be a pair (left, right), got {type}"},
    {"mixed", Error::value, "{argument} has rows and numbers"},
    {"ragged", Error::value, "{argument} has rows of {count} and of {count} numbers"},

    // ---- arrays as their libraries lend them (bindings/tensors.cpp) ----
    {"array", Error::type,
     "{argument} must be an array (NumPy, torch or any other with __dlpack__), got {type}"},
    {"unreadable", Error::type, "{array} cannot be read as an array: {call} failed"},
    {"unreadable_because", Error::type,
     "{array} cannot be read as an array: {call} failed: {error}"},
    {"device_pair", Error::type,
     "{argument} cannot be read as an array: its __dlpack_device__() must return a pair of "
     "integers, it returned {object}"},
    {"device", Error::value,
     "{argument} must be in the CPU's memory; it is on device {device}:{number}. Copy it to the "
     "CPU first"},
    {"same_device", Error::value,
     "{argument} must be on the device of {other}, {device}; it is on {device}"},
    {"other_stream", Error::value,
     "{argument} must be of a library that works on the CUDA stream of {other}: its own is "
     "another, "
     "and may not have written it yet"},
    {"stream", Error::value,
     "stream is 0, which DLPack leaves undefined on CUDA: pass 1, the legacy default stream, 2, "
     "that of the thread, or the handle of another"},
    {"no_capsule", Error::type,
     "{argument} lent no DLPack capsule: its __dlpack__() returned {type}"},
    {"used_capsule", Error::value,
     "{argument} lent a DLPack capsule that has been used before; its __dlpack__() must make a "
     "new one at every call"},
    {"unflagged", Error::type,
     "{argument} is of type {type}, which lends memory without saying whether it may be written "
     "(DLPack 0); leave {argument} away"},
    {"dlpack_version", Error::type,
     "{argument} speaks DLPack {version}, this library speaks DLPack 1"},
    {"no_shape", Error::value, "{argument} has axes but no shape"},
    {"offset", Error::value, "{argument} begins outside of the address space"},
    {"byte_order", Error::type,
     "{argument} must have the byte order of this machine, got dtype {dtype}; "
     "x.astype(x.dtype.newbyteorder(\"=\")) makes it so"},
    {"part_steps", Error::value,
     "{argument} steps by parts of an element (a stride of {bytes} bytes); pass a copy of it"},

    // ---- what an array holds (bindings/elements.cpp) ----
    {"floats", Error::type,
     "{argument} must be float64, float32, bfloat16 or float16; it is {dtype}"},
    {"mask", Error::type,
     "{argument} must be bool (True may attend), or float64, float32, bfloat16 or float16, which "
     "is added to the scores; it is {dtype}"},
    {"integers", Error::type, "{argument} must be int32 or int64; it is {dtype}"},
    {"one_axis", Error::value, "{argument} must have one axis; it has shape {shape}"},
    {"one_or_two_axes", Error::value, "{argument} must have one or two axes, it has {number}"},

    // ---- new arrays (bindings/tensors.cpp, calls.cpp) ----
    {"no_exchange", Error::type, "{argument} is of a type without DLPack exchange"},
    {"not_made", Error::type, "{argument} of shape {shape} was refused by its library: {error}"},
    {"made_otherwise", Error::type,
     "{argument} was asked of its library with shape {shape} and dtype {dtype}; it came with "
     "shape {shape} and dtype {dtype}"},
    {"made_elsewhere", Error::type,
     "{argument} was asked of its library on {device}; it came on {device}: pass out, or arrays of "
     "a "
     "library that can"},
    {"no_memory", Error::value, "there is no memory for an array of shape {shape}"},

    // ---- whether a description is possible (array.cpp) ----
    {"axes", Error::value,
     "{argument} must have at most {most} axes, its description says {number}"},
    {"negative_extent", Error::value, "{argument} of shape {shape} has a negative extent"},
    {"elements", Error::value,
     "{argument} of shape {shape} has more elements than 64 bits can count"},
    {"far_strides", Error::value,
     "{argument} of shape {shape} and strides {strides} reaches further than 64 bits can address"},
    {"null", Error::value, "{argument} of shape {shape} has no memory: its data pointer is null"},
    {"alignment", Error::value,
     "{argument} is not aligned to its elements of {bytes} bytes; pass a copy of it"},
    {"address_space", Error::value,
     "{argument} of shape {shape} does not fit in the address space"},

    // ---- where results may be written (array.cpp) ----
    {"read_only", Error::value, "{argument} is read-only, so no result fits in it"},
    {"overlaps_itself", Error::value,
     "{argument} of shape {shape} has strides {strides} by which elements may overlap: each "
     "result needs a place of its own"},
    {"overlap", Error::value,
     "{argument} shares its memory range with {other}, which is still to be read while results "
     "are written: pass a separate array"},

    // ---- attention: ranks, dtypes, shapes (problem.cpp) ----
    {"rank", Error::value,
     "{argument} must have 2, 3 or 4 axes: (S, D), {axes}; it has shape {shape}"},
    {"same_rank", Error::value,
     "{argument} must have as many axes as query, {number}; it has shape {shape}"},
    {"same_dtype", Error::type,
     "{argument} must have the dtype of {other}, {dtype}; it is {dtype}"},
    {"same_extent", Error::value,
     "{argument} of shape {shape} must have the same {extent} as {other} of shape {shape} (axis "
     "{axis} in layout \"{layout}\")"},
    {"dim", Error::value,
     "the head dimension, query's last axis, must be 1 to {most}; query has shape {shape}"},
    {"value_dim", Error::value, "value's last axis must be 0 to {most}; it has shape {shape}"},
    {"heads", Error::value,
     "the number of query heads must be a multiple of the number of key heads: query of shape "
     "{shape} has {count}, key of shape {shape} has {count}"},
    {"swapped_heads", Error::value,
     "the number of query heads must be a multiple of the number of key heads: query of shape "
     "{shape} has {count}, key of shape {shape} has {count}; if axis {axis} holds the heads, pass "
     "layout=\"{layout}\""},
    {"out_dtype", Error::value, "out_dtype must be {dtypes} for {dtype} inputs, got {dtype}"},

    // ---- attention: options (problem.cpp, plan.cpp) ----
    {"scale", Error::value, "scale must be a finite number, got {number}"},
    {"softcap", Error::value,
     "softcap must be a positive finite number, or 0 or None for none, got {number}"},
    {"broadcast", Error::value,
     "attn_mask must broadcast against (B, Hq, Sq, Sk), {shape}; it has shape {shape}"},
    {"by_head", Error::value, "{argument} must have shape (Hq,), {shape}; it has shape {shape}"},
    {"by_head_and_batch", Error::value,
     "{argument} must have shape (Hq,), {shape}, or (B, Hq), {shape}; it has shape {shape}"},
    {"slope", Error::value, "alibi_slopes must be finite numbers; number {index} is {number}"},
    {"sink", Error::value,
     "sinks must be finite numbers, or -inf for none; number {index} is {number}"},
    {"by_batch", Error::value,
     "{argument} must have one number for each sequence of the batch, {count}; it has {count}"},
    {"length", Error::value,
     "{argument} must be 0 to {most}, the positions that {other} has; it is {number}"},
    {"lengths", Error::value,
     "{argument} must be 0 to {most}, the positions that {other} has; number {index} is {number}"},
    {"dropout_p", Error::value, "dropout_p must be a probability, 0 to 1, got {number}"},
    {"no_seed", Error::value,
     "dropout_p is {number}, so seed must be given, an integer: the same in forward and backward"},
    {"seed", Error::value, "seed must be an integer of at most 64 bits, got {number}"},
    {"offsets", Error::type,
     "dropout_offset must be four integers, (batch, head, row, column), got {object}"},
    {"dropout_offset", Error::value,
     "dropout_offset must be four integers, 0 to 2^32 - 1; one of them is {number}"},
    {"materialised_dropout", Error::missing,
     "algorithm=\"{algorithm}\" has no dropout: use algorithm=\"flash\""},
    {"scores_memory", Error::value,
     "algorithm='{algorithm}' would materialise more scores than memory can be addressed; use "
     "algorithm='flash'"},

    // ---- attention: results (problem.cpp), and what backward reads of them (problem_gradient.cpp)
    {"no_backward", Error::missing,
     "algorithm=\"{name}\" has no backward pass; \"flash\", of which the others are steps, has"},
    {"grad_mask", Error::value,
     "grad_mask asks for the gradient of an additive attn_mask, of a floating dtype; attn_mask is "
     "{kind}"},
    {"result_dtype", Error::type, "{argument} must have dtype {dtypes}; it is {dtype}"},
    {"result_shape", Error::value, "{argument} must have shape {shape}; it has shape {shape}"},

    // ---- softmax, SoftmaxState, merge_states (problem.cpp) ----
    {"no_axis", Error::value, "{argument} must have at least one axis; it is a single number"},
    {"axis", Error::value, "axis must be {least} to {most} for x of shape {shape}, got {number}"},
    {"scores_axis", Error::value, "scores must have one axis; they have shape {shape}"},
    {"same_shape", Error::value,
     "{argument} must have the shape of {other}, {shape}; it has shape {shape}"},
    {"lse_dtype", Error::type, "{argument} must be {dtype} for {dtype} results; it is {dtype}"},
    {"lse_shape", Error::value,
     "{argument} must have the shape of out_a without its last axis, {shape}; it has shape "
     "{shape}. Results of layout=\"bshd\" must have their heads moved before the rows"},

    // ---- threads and instruction sets (cpu/parallel.cpp, cpu/isa.cpp) ----
    {"threads", Error::value, "num_threads: got {number}, expected at least 1 and at most {most}"},
    {"threads_variable", Error::value,
     "FANANO_NUM_THREADS={string}: expected a whole number from 1 to {most}"},
    {"isa_unknown", Error::value,
     "FANANO_ISA={string} is not compiled in; expected one of {names}"},
    {"isa_lacking", Error::value, "FANANO_ISA={string}: this CPU lacks {features}"},

    // ---- CUDA devices (no_cuda/cuda.cpp, cuda/attention.cpp) ----
    {"no_cuda", Error::missing,
     "attention cannot run on a CUDA device: {reason}. Copy the arrays to the CPU (of torch: "
     "x.cpu())"},
    {"no_cuda_kernel", Error::missing, "no CUDA kernel of this build takes the problem: {problem}"},
    {"cuda", Error::runtime, "{call} failed on CUDA device {number}: {error}"},
};

}  // namespace fanano
