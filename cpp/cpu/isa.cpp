#include "cpu/isa.hpp"

#include <cstdlib>

#include "errors.hpp"
#include "isa_table.hpp"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fanano {

#if defined(__x86_64__) || defined(_M_X64)

namespace {

// Which register files the operating system saves: a CPU may have AVX-512 and the system not.
uint64_t saved_by_the_system() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

uint32_t detect() {
  uint32_t a, b, c, d, bits = 0;
  auto has = [](uint32_t word, int bit) { return (word >> bit & 1) != 0; };
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, 27)) return 0;  // OSXSAVE
  uint64_t saved = saved_by_the_system();
  bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
  if (ymm && has(c, 12)) bits |= fma_bit;
  if (ymm && has(c, 29)) bits |= f16c_bit;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return bits;
  uint32_t leaves = a, tile_bits = d;
  if (ymm && has(b, 5)) bits |= avx2_bit;
  bool foundation = has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31);  // F, DQ, BW, VL
  if (zmm && foundation) bits |= avx512_bit;
  if (zmm && foundation && leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, 5))
    bits |= avx512bf16_bit;
#if defined(__linux__)  // elsewhere nobody has tried
  bool tiles = (saved >> 17 & 3) == 3 && has(tile_bits, 22) && has(tile_bits, 24);
  if (tiles && (bits & avx512bf16_bit)) bits |= amx_bit;
#endif
  return bits;
}

}  // namespace

uint32_t machine_features() {
  static const uint32_t features = detect();
  return features;
}

#else

uint32_t machine_features() { return 0; }

#endif

bool obtain(const Kernels& k) {
#if defined(__linux__) && defined(__x86_64__)
  constexpr int request_permission = 0x1023, tile_data = 18;  // of asm/prctl.h, and of XCR0
  if (k.features & amx_bit) return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#endif
  return true;
}

std::string feature_names(uint32_t bits) {
  const struct {
    uint32_t bit;
    const char* name;
  } all[] = {{avx2_bit, "avx2"},
             {fma_bit, "fma"},
             {f16c_bit, "f16c"},
             {avx512_bit, "avx512"},
             {avx512bf16_bit, "avx512bf16"},
             {amx_bit, "amx"}};
  std::string names;
  for (auto& feature : all)
    if (bits & feature.bit) names += (names.empty() ? "" : ", ") + std::string(feature.name);
  return names;
}

std::vector<const Kernels*> compiled_isas() { return {std::begin(isa_table), std::end(isa_table)}; }

bool runnable(const Kernels& k) { return (k.features & ~machine_features()) == 0; }

const Kernels& choose_isa(const char* forced, uint32_t features) {
  std::string names;
  for (const Kernels* k : isa_table) {
    uint32_t missing = k->features & ~features;
    if (forced && *forced) {
      names += (names.empty() ? "" : ", ") + std::string(k->isa);
      if (std::string(forced) != k->isa) continue;
      if (missing) refuse("isa_lacking", forced, feature_names(missing));
    }
    if (!missing) return *k;
  }
  refuse("isa_unknown", forced, names);
}

const Kernels& chosen_isa() {
  static const Kernels& chosen = []() -> const Kernels& {
    const char* forced = std::getenv("FANANO_ISA");
    const Kernels& best = choose_isa(forced, machine_features());
    return obtain(best) ? best : choose_isa(forced, machine_features() & ~amx_bit);
  }();
  return chosen;
}

}  // namespace fanano
