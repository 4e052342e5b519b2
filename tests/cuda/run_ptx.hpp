// Runs PTX that a test has as text: for the tests of the emulator itself, which need no nvcc.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "emulator/block.hpp"
#include "emulator/fault.hpp"
#include "emulator/parser.hpp"

namespace run_ptx {

// Device memory of n numbers; without values, nothing has written to it.
template <class T> class Numbers {
  T* data_;
  size_t n_;

 public:
  explicit Numbers(size_t n)
      : data_(static_cast<T*>(emulator::device_memory().allocate(n * sizeof(T)))), n_(n) {}
  explicit Numbers(const std::vector<T>& values) : Numbers(values.size()) {
    emulator::device_memory().copy_in(data_, values.data(), n_ * sizeof(T));
  }
  Numbers(const Numbers&) = delete;
  ~Numbers() { emulator::device_memory().free(data_); }

  uint64_t address() const { return reinterpret_cast<uint64_t>(data_); }
  bool all_written() const {
    std::vector<T> copy(n_);
    return emulator::device_memory().copy_out(copy.data(), data_, n_ * sizeof(T));
  }
  std::vector<T> values() const { return {data_, data_ + n_}; }
};

// A module of one kernel named k. Parameters are a list of 64-bit numbers, p0 p1 ...
inline std::string module(const std::string& body, int parameters, const std::string& before = "") {
  std::string text =
      ".version 8.0\n.target sm_80\n.address_size 64\n" + before + "\n.visible .entry k(";
  for (int p = 0; p < parameters; ++p)
    text += std::string(p ? ", " : "") + ".param .u64 p" + std::to_string(p);
  return text + ")\n{\n.reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<29>; .reg .f32 %f<29>;\n" +
         ".reg .b64 %d<29>; .reg .f64 %e<9>;\n" + body + "\nret;\n}\n";
}

struct Options {
  emulator::Dim grid, threads{32, 1, 1};
  size_t dynamic_bytes = 0;
  emulator::Order order = emulator::Order::forward;
};

inline void run(const std::string& text, const std::vector<uint64_t>& parameters,
                const Options& options = {}) {
  emulator::Program program = emulator::parse(text);
  emulator::Launch launch{program.kernels.at("k"),
                          options.grid,
                          options.threads,
                          options.dynamic_bytes,
                          std::vector<char>(parameters.size() * 8),
                          options.order};
  if (!parameters.empty())
    std::memcpy(launch.parameters.data(), parameters.data(), launch.parameters.size());
  emulator::run(launch);
}

}  // namespace run_ptx
