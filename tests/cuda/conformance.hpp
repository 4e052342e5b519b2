// Conformance of single instructions: what each gives for fixed inputs, against what its definition
// says, on whatever runs it: a GPU, whose results are recorded, or the emulator, which must agree.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "device.hpp"

namespace conformance {

using namespace fanano;
using Words = std::vector<uint32_t>;

struct Case {
  std::string name;
  Words inputs;
  Words (*run)(const Words& inputs);
  // What must come out, bit for bit, but that a NaN is a NaN where the words are floats; or floats
  // that may be wrong by so much, where definitions leave it open.
  Words exact;
  bool floats = false;
  std::vector<double> reference = {}, allowed = {};
};

void add_movement(std::vector<Case>& cases);
void add_numbers(std::vector<Case>& cases);
void add_products(std::vector<Case>& cases);

inline uint32_t word(float x) { return std::bit_cast<uint32_t>(x); }
inline float number(uint32_t x) { return std::bit_cast<float>(x); }

// The kernel in warps of 32 threads, each a block; so many words of output from each thread, thread
// after thread.
using Kernel = void (*)(const uint32_t* in, uint32_t* out);
template <Kernel kernel, int outputs, int inputs_of_a_thread = 0> Words run(const Words& inputs) {
  size_t threads = 32;
  if constexpr (inputs_of_a_thread) threads = inputs.size() / size_t(inputs_of_a_thread);
  if (threads % 32) throw std::runtime_error("inputs are no whole warps");
  device::Buffer<uint32_t> in(inputs), out(threads * outputs);
  kernel<<<unsigned(threads / 32), 32>>>(in.data(), out.data());
  device::finish();
  return out.values();
}

inline __device__ int thread() { return int(blockIdx.x * 32 + threadIdx.x); }

}  // namespace conformance
