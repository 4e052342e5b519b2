// What the accesses of the gradients by sm_80's instructions cost, by the emulator's count: shared
// memory without a bank conflict, device memory in whole sectors.
#include "backward_check.hpp"
#include "emulator/statistics.hpp"

using namespace attention_case;

namespace {

void check_traffic(const cuda::BackwardKernel& kernel, const Case& c) {
  DeviceGradients<bfloat16> problem(c, kernel.dtype);
  const device::Buffer<uint8_t> workspace(size_t(kernel.workspace(problem.p)));
  emulator::clear_traffic();
  emulator::count_traffic(true);
  device::check(kernel.launch(problem.p, workspace.data(), nullptr));
  device::finish();
  emulator::count_traffic(false);
  size_t matrices = 0, copies = 0;
  for (const emulator::Traffic& t : emulator::traffic()) {
    std::printf("%s: %s\n", kernel.name, t.text().c_str());
    matrices += t.instruction.starts_with("ldmatrix"), copies += t.bytes == 16 && !t.shared;
    // Row terms are three numbers of a row: to shared memory they go by the number.
    const bool terms = t.instruction.starts_with("cp.async") && t.bytes == 4;
    if ((t.bytes == 16 || t.shared) && !terms) CHECK(t.ratio() == 1);
  }
  CHECK(matrices >= 4 && copies >= 4);
}

}  // namespace

TEST(no_bank_conflicts_and_whole_sectors) {
  for (const cuda::BackwardKernel* kernel : cuda::all_backward_kernels) {
    // Those of float16 are the same.
    if (kernel->dtype != Dtype::bfloat16 || !is_sm80(*kernel)) continue;
    Case c{shape(64, 128, kernel->dim, kernel->dim)};
    c.masked = kernel->general, c.mask_dtype = Dtype::float32;
    check_traffic(*kernel, c);
  }
}
