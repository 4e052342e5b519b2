// What one instruction set offers: a table of entry points, made once per row of the ISA table.
// The kernels' own namespace is fanano::<isa>; nothing else of theirs is visible outside.
#pragma once

#include <cstdint>

#include "../math/online_softmax.hpp"
#include "../plan.hpp"
#include "../problem.hpp"

namespace fanano {

// A softmax over rows of n numbers: `rows` = outer x inner, one element every `stride`.
// The strides of the leading and trailing axes are walked by the caller.
struct SoftmaxRows {
  Dtype dtype;
  Algorithm algorithm;
  int64_t n, x_stride, out_stride;
};

struct Tiles {  // the sizes this ISA works in, for the planner and for those who read a plan
  int rows;     // query rows of one strip: vectors x lanes
  int keys;     // keys of one tile: a boundary in absolute position, so part of the results' bits
};

struct Kernels {
  const char* isa;
  uint32_t features;              // what the compiler was allowed to use: cpu/isa.hpp
  Tiles tiles32, tiles64;         // for float32 accumulation, for float64
  int64_t (*scratch)(const Problem&, int64_t rows);  // bytes for one thread

  // Work on tasks of a plan; scratch is this thread's own.
  void (*flash)(const Problem&, const Plan&, int64_t task, void* scratch);
  void (*materialised)(const Problem&, const Plan&, int64_t task, void* scratch, void* workspace);

  void (*softmax)(const SoftmaxRows&, const void* x, void* out);       // one row
  OnlineSoftmax<double> (*absorb)(Dtype, const void* x, int64_t n, int64_t stride);
};

}  // namespace fanano
