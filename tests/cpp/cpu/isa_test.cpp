#include "cpu/isa.hpp"

#include <cstdlib>

#include "../check.hpp"
#include "attention.hpp"
#include "errors.hpp"

using namespace fanano;

TEST(the_compiler_sees_the_same_features) {
#if defined(__x86_64__)
  uint32_t bits = machine_features();
  CHECK(bool(bits & avx2_bit) == bool(__builtin_cpu_supports("avx2")));
  CHECK(bool(bits & fma_bit) == bool(__builtin_cpu_supports("fma")));
  CHECK(bool(bits & avx512_bit) ==
        (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")));
  CHECK(!(bits & avx512bf16_bit) || (bits & avx512_bit));
#ifndef __clang__  // which knows no such names
  CHECK(!(bits & amx_bit) ||
        (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16")));
#endif
#else
  CHECK(machine_features() == 0);
#endif
}

TEST(this_file_is_compiled_for_any_machine) { CHECK(compiled_features() == 0); }

TEST(names_of_features) {
  CHECK(feature_names(0) == "");
  CHECK(feature_names(avx2_bit | f16c_bit) == "avx2, f16c");
  CHECK(feature_names(avx512bf16_bit | amx_bit) == "avx512bf16, amx");
}

TEST(the_scalar_kernels_are_the_last_resort) {
  const Kernels& last = *compiled_isas().back();
  CHECK(std::string(last.isa) == "scalar");
  CHECK(last.features == 0 && runnable(last));
}

TEST(better_ones_need_more) {
  std::vector<const Kernels*> list = compiled_isas();
  for (size_t i = 1; i < list.size(); ++i) CHECK((list[i]->features & ~list[i - 1]->features) == 0);
}

TEST(the_best_or_the_forced_one_is_chosen) {
  const char* forced = std::getenv("FANANO_ISA");
  const Kernels& chosen = chosen_isa();
  CHECK(runnable(chosen));
  for (const Kernels* k : compiled_isas())
    if (forced && *forced ? std::string(forced) == k->isa : runnable(*k)) {
      CHECK(k == &chosen);
      break;
    }
}

// Of every row, on a machine that has what the row needs and on one that has nothing.
TEST(what_is_forced_runs_or_is_an_error) {
  for (const Kernels* k : compiled_isas()) {
    CHECK(&choose_isa(k->isa, k->features) == k);
    const Kernels& best = choose_isa(nullptr, k->features);  // of those that need no more
    CHECK(best.features == k->features && &choose_isa("", k->features) == &best);
    if (k->features)
      CHECK_THROWS(ValueError,
                   std::string("FANANO_ISA=") + k->isa + ": this CPU lacks " +
                       feature_names(k->features),
                   choose_isa(k->isa, 0));
    CHECK_THROWS(ValueError, k->isa, choose_isa("avx3", k->features));
  }
  CHECK_THROWS(ValueError, "FANANO_ISA=avx3 is not compiled in; expected one of ",
               choose_isa("avx3", 0));
}

TEST(the_list_of_kernels_agrees) {
  int chosen = 0;
  for (const KernelInfo& info : kernels()) {
    CHECK(info.runnable == info.why_not.empty());
    chosen += info.chosen;
    if (info.chosen) CHECK(info.isa == chosen_isa().isa);
  }
  CHECK(chosen == 1);
}

TEST(tiles_are_whole_vectors) {
  for (const Kernels* k : compiled_isas()) {
    CHECK(k->strip32 >= 1 && k->strip64 >= 1 && k->strip32 % k->strip64 == 0);
    CHECK(k->tile_keys == compiled_isas()[0]->tile_keys);
  }
}
