// The text of PTX: scopes, labels, declarations, and the sources that .loc names.
#include "../cpp/check.hpp"
#include "emulator/statements.hpp"
#include "run_ptx.hpp"

using namespace run_ptx;

TEST(lists_are_split_at_their_own_commas) {
  CHECK(
      (emulator::split(" {a, b}, [c + 8], d ") == std::vector<std::string>{"{a,b}", "[c+8]", "d"}));
  CHECK(emulator::split("").empty());
  CHECK((emulator::split("p|q", '|') == std::vector<std::string>{"p", "q"}));
}

TEST(a_kernel) {
  emulator::Program program = emulator::parse(R"(
.version 9.0
.target sm_80
.extern .shared .align 16 .b8 dynamic[];
.visible .entry first(.param .align 8 .b8 first_0[20], .param .u32 first_1)
.maxntid 128, 2, 1
{ .reg .b32 %r<9>; /* a comment
                      over two lines */
  .shared .align 4 .b8 tile[100];
  .shared .align 8 .f64 numbers[3];  // another
  mov.u32 %r1, tile;
  { .reg .b32 %r1; mov.u32 %r1, numbers; LABEL: bra LABEL; }
  @!%r1 bra.uni LABEL2;
LABEL2: ret; }
.visible .entry second() { ret; }
)");
  CHECK(program.kernels.size() == 2);
  const emulator::Kernel& k = program.kernels.at("first");
  CHECK(k.parameters.size() == 2 && k.parameters[1].offset == 20 && k.parameter_bytes == 24);
  CHECK(k.most_threads == 256);
  CHECK(k.shared_bytes == 104 + 24);
  CHECK(k.code.size() == 5);
  CHECK(k.slots[k.code[0].slot(1)] == emulator::shared_base);
  CHECK(k.slots[k.code[1].slot(1)] == emulator::shared_base + 104);
  CHECK(k.code[0].slot(0) != k.code[1].slot(0));  // %r1 of the inner scope is another
  CHECK(k.code[2].target == 2);
  CHECK(k.code[3].target == 4 && k.code[3].unless && k.code[3].guard == k.code[0].slot(0));
  CHECK(program.kernels.at("second").code.size() == 1);
}

TEST(places_in_the_source) {
  emulator::Program program = emulator::parse(R"(
.visible .entry k()
{ .reg .b32 %r<9>;
	.loc	1 10 3
  mov.u32 %r1, 1;
  .loc 2 20 5, function_name $L__info_string0, inlined_at 1 11 7
  .loc 3 30 5, function_name $L__info_string1, inlined_at 2 20 5
  mov.u32 %r1, 2;
  .loc 3 30 5, function_name $L__info_string1, inlined_at 1 12 7
  ret;
}
.file 1 "/some/where/kernel.cuh"
	.file	2 "/some/where/tile.cuh"
.file 3 "/some/where/ptx.cuh"
.section .debug_str { $L__info_string0: .b8 95,0 }
)");
  const auto& code = program.kernels.at("k").code;
  CHECK(code[0].where.text() == "kernel.cuh:10");
  CHECK(code[1].where.text() == "kernel.cuh:11 (by way of ptx.cuh:30)");
  CHECK(code[2].where.text() == "kernel.cuh:12 (by way of ptx.cuh:30)");
}

TEST(special_registers_and_order) {
  // Every thread writes its own place, computed from all special registers.
  for (auto order :
       {emulator::Order::forward, emulator::Order::backward, emulator::Order::random}) {
    Numbers<uint32_t> out(2 * 3 * 64);
    run(module(R"(
      mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %ntid.x; mov.u32 %r4, %ntid.y;
      mov.u32 %r5, %ctaid.x; mov.u32 %r6, %ctaid.z; mov.u32 %r7, %nctaid.x;
      mad.lo.s32 %r8, %r2, %r3, %r1;
      mad.lo.s32 %r9, %r6, %r7, %r5;
      mul.lo.s32 %r10, %r3, %r4;
      mad.lo.s32 %r11, %r9, %r10, %r8;
      ld.param.u64 %d1, [p0];
      mul.wide.u32 %d2, %r11, 4;
      add.s64 %d1, %d1, %d2;
      mov.u32 %r12, %laneid;
      st.global.u32 [%d1], %r12;)",
               1),
        {out.address()}, {{2, 1, 3}, {16, 4, 1}, 0, order});
    CHECK(out.all_written());
    std::vector<uint32_t> got = out.values();
    for (size_t n = 0; n < got.size(); ++n) CHECK(got[n] == n % 32);
  }
}
