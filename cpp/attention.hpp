// The C++ API: check, plan, run. Knows nothing of Python or DLPack.
#pragma once

#include <string>
#include <vector>

#include "math/online_softmax.hpp"
#include "plan.hpp"
#include "problem.hpp"

namespace fanano {

// Attention of a checked problem into problem.out (and problem.lse).
void forward(const Problem&, int max_threads = 0);

// The gradients of a checked problem that has been described with its gradients: p.out and p.lse
// are read, what is in p.gradient is read and written.
void backward(const Problem&, int max_threads = 0);

// softmax of x along axis into out (same shape and dtype), by one of the three softmax algorithms.
void softmax(const Array& x, const Array& out, int axis, Algorithm, int max_threads = 0);

// The partial state of the 1-D scores x, any dtype (natural logarithm units: see
// online_softmax.hpp).
OnlineSoftmax<double> absorb(OnlineSoftmax<double>, const Array& x);

// Merges two partial results over the same rows: out_* (..., value_dim), lse_* (...).
void merge_states(const Array& out_a, const Array& lse_a, const Array& out_b, const Array& lse_b,
                  const Array& out, const Array& lse, int max_threads = 0);

// What this build contains and what this machine can run.
struct KernelInfo {
  std::string device, isa;
  std::string name, dtype;  // of CUDA's; an instruction set of the CPU has all
  bool runnable = false;
  std::string why_not;  // empty when runnable
  bool chosen = false;
};
std::vector<KernelInfo> cpu_kernels();  // best first
std::vector<KernelInfo> kernels();      // those, then CUDA's

// Floating-point operations a second that multiply-adds in registers reach, as prefill makes them
// for inputs of that dtype (for float16 those of float32), all threads together, measured over
// their CPU time for about so long.
double measure_peak(double seconds, Dtype = Dtype::float32, int max_threads = 0);

// Loads the bytes from an array's first to its last element once, all threads together; returns
// their parity, word by word. Timed, it is the bandwidth that memory can be read with.
uint64_t read(const Array& x, int max_threads = 0);

int get_num_threads();

const char* version();
bool built_with_cuda();

}  // namespace fanano
