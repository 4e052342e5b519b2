// What one instruction set offers: a table of entry points, made once per row of the ISA table.
// The kernels' own namespace is fanano::<isa>; nothing else of theirs is visible outside.
#pragma once

#include <cstdint>

#include "../math/online_softmax.hpp"
#include "../plan.hpp"
#include "../problem.hpp"

namespace fanano {

struct SoftmaxRow {  // n numbers, strides in elements
  Dtype dtype;
  Algorithm algorithm;
  int64_t n, x_stride, out_stride;
};

struct MergeRow {
  Dtype dtype;
  int64_t n, a_stride, b_stride, out_stride;
};

// One task of a stage. scratch is the thread's own; workspace is shared.
using BackwardTask = void(const Problem&, const BackwardPlan&, int64_t task, void* scratch,
                          void* workspace);

// Query rows of a block of flash: fewer share too little, if each thread gets one; more save
// nothing.
struct RowLimits { int64_t least, most; };

struct Kernels {
  const char* isa;
  uint32_t features;     // what the compiler was allowed to use: cpu/isa.hpp
  int strip32, strip64;  // query rows of a strip in float32, in float64: the unit of a row block
  int tile_keys;         // keys of a tile
  int decode_keys;       // of one of decode

  RowLimits (*row_limits)(const Problem&);

  // Bytes of scratch that one thread needs for blocks of so many rows.
  int64_t (*flash_scratch)(const Problem&, int64_t rows);
  int64_t (*materialised_scratch)(const Problem&, int64_t rows);
  int64_t (*decode_scratch)(const Problem&);

  // Bytes of the state that one team leaves for one split of its keys.
  int64_t (*decode_state)(const Problem&);

  // One task of a plan. scratch is the thread's own; scores is shared, (batch, heads, queries,
  // keys).
  void (*flash)(const Problem&, const Plan&, int64_t task, void* scratch);
  void (*materialised)(const Problem&, const Plan&, int64_t task, void* scratch, void* scores);

  // One split of a team; then a team: by itself, or (workspace not null) of what its splits left.
  void (*decode_split)(const Problem&, const Plan&, int64_t task, void* scratch, void* workspace);
  void (*decode)(const Problem&, const Plan&, int64_t task, void* scratch, void* workspace);

  // Query rows that pass the keys together in backward.
  int64_t (*pass_rows)(const Problem&);

  // Bytes that backward needs: of scratch for one thread, for the numbers of all rows, for one sum
  // of dk and dv.
  int64_t (*backward_scratch)(const Problem&, const BackwardPlan&);
  int64_t (*row_numbers)(const Problem&);
  int64_t (*key_sums)(const Problem&);

  // A task of each stage of backward.
  BackwardTask *backward_rows, *backward_keys, *backward_add, *backward_bias, *backward_sinks;

  // One row each.
  void (*softmax)(const SoftmaxRow&, const void* x, void* out);
  OnlineSoftmax<double> (*absorb)(OnlineSoftmax<double>, Dtype, const void* x, int64_t n,
                                  int64_t stride);
  double (*merge)(const MergeRow&, const void* a, double lse_a, const void* b, double lse_b,
                  void* out);  // returns the merged lse

  // Multiply-adds in registers, as the products of prefill are made for inputs of that type;
  // returns the floating-point operations done.
  double (*peak)(Dtype, int64_t rounds);

  // Loads all of these bytes; returns a number that depends on each of them.
  uint64_t (*read)(const void* data, int64_t bytes);
};

}  // namespace fanano
