// What flash attention's accesses cost, by the emulator's count: shared memory without a bank
// conflict, device memory in whole sectors.
#include "emulator/statistics.hpp"
#include "flash_check.hpp"

using namespace attention_case;

namespace {

// Returns the sectors of copies to shared memory.
uint64_t check_traffic(const cuda::FlashKernel& kernel, const Case& c) {
  DeviceProblem<bfloat16> problem(c, kernel.dtype);
  emulator::clear_traffic();
  emulator::count_traffic(true);
  device::check(launch(kernel, problem.p));
  device::finish();
  emulator::count_traffic(false);
  size_t matrices = 0, copies = 0;
  uint64_t copied = 0;
  for (const emulator::Traffic& t : emulator::traffic()) {
    std::printf("%s: %s\n", kernel.name, t.text().c_str());
    matrices += t.instruction.starts_with("ldmatrix"), copies += t.bytes == 16 && !t.shared;
    if (t.instruction.starts_with("cp.async") && !t.shared) copied += t.cost;
    // lse is one number of each fourth lane; of the block's own work all lanes read the same.
    if (t.bytes == 16 || t.shared) CHECK(t.ratio() == 1);
  }
  CHECK(matrices >= 2 && copies >= 2);
  return copied;
}

}  // namespace

TEST(no_bank_conflicts_and_whole_sectors) {
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels) {
    // Those of float16 are the same.
    if (kernel->dtype != Dtype::bfloat16 || !is_sm80(*kernel)) continue;
    Case c{flash_shape(1, 1, 1, 128, 128, kernel->dim)};
    c.masked = kernel->general, c.mask_dtype = Dtype::float32;
    check_traffic(*kernel, c);
  }
}

// Two key heads for 4 query heads each, two queries, two splits.
TEST(decode_reads_keys_and_values_once) {
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels) {
    if (kernel->dtype != Dtype::bfloat16 || !is_decode(*kernel)) continue;
    Case c{flash_shape(1, 8, 2, 2, 1024, kernel->dim)};
    c.masked = true, c.mask_dtype = Dtype::float32;
    const uint64_t row = uint64_t(kernel->dim) * 2 / 32, blocks = 4;
    CHECK(check_traffic(*kernel, c) == (2 * 1024 * 2 + blocks * 8) * row);
  }
}
