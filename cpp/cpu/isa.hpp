// Which instruction sets this machine has, and which of the compiled ones runs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace fanano {

enum Feature : uint32_t {
  avx2_bit = 1,
  fma_bit = 2,
  f16c_bit = 4,
  avx512_bit = 8,
  avx512bf16_bit = 16,
  amx_bit = 32
};

// The features that the compiler was told it may use in this translation unit: a row's needs are
// read off its flags, so that no second table has to agree with the one in CMake.
constexpr uint32_t compiled_features() {
  uint32_t bits = 0;
#ifdef __AVX2__
  bits |= avx2_bit;
#endif
#ifdef __FMA__
  bits |= fma_bit;
#endif
#ifdef __F16C__
  bits |= f16c_bit;
#endif
#ifdef __AVX512F__
  bits |= avx512_bit;
#endif
#ifdef __AVX512BF16__
  bits |= avx512bf16_bit;
#endif
#ifdef __AMX_BF16__
  bits |= amx_bit;
#endif
  return bits;
}

uint32_t machine_features();               // by cpuid, and by xgetbv what the system saves
std::string feature_names(uint32_t bits);  // "avx512, avx512bf16"

std::vector<const Kernels*> compiled_isas();  // best first
bool runnable(const Kernels&);

// Asks the system for what the row needs and a process has not from the start: Linux saves tile
// registers, which are large, only for those that have asked, once for all threads. From then on it
// refuses alternate signal stacks that have no room for them (sigaltstack: ENOMEM below 11 KiB),
// and it refuses here while there is such a stack: false.
bool obtain(const Kernels&);

// The best row that a machine of these features can run, or the one that is forced by its name
// (null or "": none is); ValueError when that one is not compiled or cannot run there.
const Kernels& choose_isa(const char* forced, uint32_t features);

// That of this machine and of the environment variable FANANO_ISA, chosen at the first call.
const Kernels& chosen_isa();

}  // namespace fanano
