// The kernels of one instruction set, as kernels.cpp puts them into its table.
#pragma once

#include "kernels.hpp"
#include "simd/simd.hpp"

namespace fanano::FANANO_ISA {

RowLimits row_limits(const Problem&);
int64_t flash_scratch(const Problem&, int64_t rows);
void flash(const Problem&, const Plan&, int64_t task, void* scratch);

int64_t pass_rows(const Problem&);
int64_t backward_scratch(const Problem&, const BackwardPlan&);
BackwardTask backward_rows, backward_keys, backward_bias;

double peak(Dtype, int64_t rounds);
uint64_t read(const void* data, int64_t bytes);

}  // namespace fanano::FANANO_ISA

namespace fanano::FANANO_SHARED {

extern const Kernels kernels;

int64_t materialised_scratch(const Problem&, int64_t rows);
void materialised(const Problem&, const Plan&, int64_t task, void* scratch, void* scores);

int64_t decode_scratch(const Problem&);
int64_t decode_state(const Problem&);
void decode_split(const Problem&, const Plan&, int64_t task, void* scratch, void* workspace);
void decode(const Problem&, const Plan&, int64_t task, void* scratch, void* workspace);

int64_t row_numbers(const Problem&);
int64_t key_sums(const Problem&);
BackwardTask backward_add, backward_sinks;

void softmax(const SoftmaxRow&, const void* x, void* out);
OnlineSoftmax<double> absorb(OnlineSoftmax<double>, Dtype, const void* x, int64_t n,
                             int64_t stride);
double merge(const MergeRow&, const void* a, double lse_a, const void* b, double lse_b, void* out);

}  // namespace fanano::FANANO_SHARED

namespace fanano::FANANO_ISA {
namespace shared = fanano::FANANO_SHARED;
}
