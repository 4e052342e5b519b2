// What flash attention's accesses cost, by the emulator's count: shared memory without a bank
// conflict, device memory in whole sectors.
#include "emulator/statistics.hpp"
#include "flash_check.hpp"

using namespace attention_case;

namespace {

void check_traffic(const cuda::FlashKernel& kernel, const Case& c) {
  DeviceProblem<bfloat16> problem(c, kernel.dtype);
  emulator::clear_traffic();
  emulator::count_traffic(true);
  device::check(kernel.launch(problem.p, nullptr));
  device::finish();
  emulator::count_traffic(false);
  size_t matrices = 0, copies = 0;
  for (const emulator::Traffic& t : emulator::traffic()) {
    std::printf("%s: %s\n", kernel.name, t.text().c_str());
    matrices += t.instruction.starts_with("ldmatrix"), copies += t.bytes == 16 && !t.shared;
    // lse is one number of each fourth lane; of the block's own work all lanes read the same.
    if (t.bytes == 16 || t.shared) CHECK(t.ratio() == 1);
  }
  CHECK(matrices >= 2 && copies >= 2);
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
