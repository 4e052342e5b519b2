// What flash attention's accesses cost, by the emulator's count: shared memory without a bank
// conflict, device memory in whole sectors.
#include "device_problem.hpp"
#include "emulator/statistics.hpp"

using namespace attention_case;

TEST(no_bank_conflicts_and_whole_sectors) {
  for (const cuda::FlashKernel* kernel : cuda::all_flash_kernels) {
    device::with_type(kernel->dtype, [&]<class T>() {
      DeviceProblem<T> problem({{1, 1, 1, 128, 128, 64, 64}}, kernel->dtype);
      emulator::clear_traffic();
      emulator::count_traffic(true);
      device::check(kernel->launch(problem.p, nullptr));
      device::finish();
      emulator::count_traffic(false);
    });
    size_t matrices = 0, copies = 0;
    for (const emulator::Traffic& t : emulator::traffic()) {
      std::printf("%s\n", t.text().c_str());
      matrices += t.instruction.starts_with("ldmatrix"), copies += t.bytes == 16 && !t.shared;
      // lse is one number of each fourth lane.
      if (t.bytes == 16 || t.shared) CHECK(t.ratio() == 1);
    }
    CHECK(matrices >= 3 && copies >= 3);
  }
}
