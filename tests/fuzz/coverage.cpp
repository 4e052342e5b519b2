// Counts which parts of fanano run, for the fuzz target: what is compiled with
// -fsanitize-coverage=trace-pc calls this at every branch. Two branches may share a counter, and
// two threads lose a count; nothing depends on them but how fast a search goes.
#include <cstdint>

constexpr int bits = 14;

extern "C" {

[[gnu::visibility("default")]] uint8_t fanano_coverage[1 << bits];

void __sanitizer_cov_trace_pc() {
  auto pc = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  ++fanano_coverage[pc * 0x9e3779b97f4a7c15 >> (64 - bits)];
}
}
