// Programs that are wrong on purpose: each must be reported, with the places that are to blame; and
// its right twin must not be.
#include "../cpp/check.hpp"
#include "emulator/statistics.hpp"
#include "run_ptx.hpp"

using namespace run_ptx;
using emulator::Fault;

namespace {

// A thread writes its place of a tile and reads its neighbour's; what stands between is the test's.
std::string exchange(const std::string& between) {
  return module(R"(
    .shared .align 4 .b8 tile[256];
    mov.u32 %r1, %tid.x;
    shl.b32 %r2, %r1, 2;
    mov.u32 %r3, tile;
    add.s32 %r4, %r3, %r2;
    xor.b32 %r5, %r2, 128;
    add.s32 %r5, %r3, %r5;
    .loc 1 10 1
    st.shared.u32 [%r4], %r1;
    .loc 1 11 1
    )" + between + R"(
    .loc 1 12 1
    ld.shared.u32 %r6, [%r5];
    ret;
    .file 1 "exchange.cu"
    )",
                0);
}

const Options two_warps{{}, {64, 1, 1}};

}  // namespace

TEST(a_missing_barrier_is_a_race) {
  run(exchange("bar.sync 0;"), {}, two_warps);
  for (auto order :
       {emulator::Order::forward, emulator::Order::backward, emulator::Order::random}) {
    Options options = two_warps;
    options.order = order;
    // Whichever warp comes first reads what is not there yet, or writes over what was read.
    CHECK_THROWS(Fault, "exchange.cu:12", run(exchange(""), {}, options));
    // A barrier of the warp orders the lanes of one warp alone.
    CHECK_THROWS(Fault, "exchange.cu:12", run(exchange("bar.warp.sync -1;"), {}, options));
  }
}

TEST(both_places_of_a_race_are_named) {
  // All places are written before; then one thread writes what all read.
  std::string text = exchange("bar.sync 0;");
  text.insert(text.find("ret;"), ".loc 1 13 1\nsetp.eq.u32 %p1, %r1, 40;\n"
                                 "@%p1 st.shared.u32 [%r3+4], %r1;\n");
  try {
    run(text, {}, two_warps);
    CHECK(!"a race was not found");
  } catch (const Fault& fault) {
    std::string what = fault.what();
    CHECK(what.find("race: write of byte 4 of shared memory by thread 40") != std::string::npos);
    CHECK(what.find("exchange.cu:13") < what.find("exchange.cu:12"));
    CHECK(what.find("exchange.cu:12 (ld.shared.u32)") != std::string::npos);
  }
}

TEST(shuffles_do_not_order_memory) {
  // Within one warp, which runs together here, and need not elsewhere.
  auto text = [](const std::string& between) {
    return module(".shared .align 4 .b8 t[128];\nmov.u32 %r1, %tid.x;\nshl.b32 %r2, %r1, 2;\n"
                  "mov.u32 %r3, t;\nadd.s32 %r4, %r3, %r2;\nxor.b32 %r5, %r2, 64;\n"
                  "add.s32 %r5, %r3, %r5;\nst.shared.u32 [%r4], %r1;\n" +
                      between + "ld.shared.u32 %r6, [%r5];\n",
                  0);
  };
  run(text("bar.warp.sync -1;\n"), {});
  CHECK_THROWS(Fault, "race: read", run(text("shfl.sync.bfly.b32 %r9, %r1, 1, 31, -1;\n"), {}));
}

TEST(bounds_and_alignment_of_shared_memory) {
  auto access = [](const std::string& line) {
    return module(".shared .align 16 .b8 t[64];\nmov.u32 %r1, t;\n" + line, 0);
  };
  CHECK_THROWS(Fault, "out of bounds: thread 0 of block 0 accesses 4 bytes at 0x440",
               run(access("st.shared.u32 [%r1+64], %r1;"), {}));
  CHECK_THROWS(Fault, "out of bounds", run(access("st.shared.u32 [%r1+-4], %r1;"), {}));
  CHECK_THROWS(Fault, "out of bounds",
               run(access("mov.u32 %r2, 0;\nld.shared.u32 %r3, [%r2];"), {}));
  CHECK_THROWS(Fault, "misaligned", run(access("st.shared.u32 [%r1+2], %r1;"), {}));
  CHECK_THROWS(Fault, "misaligned", run(access("st.shared.v2.u32 [%r1+4], {%r1, %r1};"), {}));
  CHECK_THROWS(Fault, "uninitialised", run(access("ld.shared.u32 %r3, [%r1];"), {}));
}

TEST(device_memory) {
  Numbers<uint32_t> in(std::vector<uint32_t>(32, 7)), out(32);
  auto access = [](const std::string& line) {
    return module("ld.param.u64 %d1, [p0]; mov.u32 %r1, %tid.x; mul.wide.u32 %d2, %r1, 4;\n"
                  "add.s64 %d3, %d1, %d2;\n" +
                      line,
                  1);
  };
  run(access("ld.global.u32 %r2, [%d3];"), {in.address()});
  CHECK_THROWS(Fault, "out of bounds: thread 31",
               run(access("ld.global.u32 %r2, [%d3+4];"), {in.address()}));
  CHECK_THROWS(Fault, "out of bounds", run(access("ld.global.u32 %r2, [%d1+-4];"), {in.address()}));
  CHECK_THROWS(Fault, "misaligned", run(access("ld.global.u32 %r2, [%d1+2];"), {in.address()}));
  CHECK_THROWS(Fault, "uninitialised", run(access("ld.global.u32 %r2, [%d3];"), {out.address()}));
  run(access("setp.ne.u32 %p1, %r1, 5;\n@%p1 st.global.u32 [%d3], %r1;"), {out.address()});
  CHECK(!out.all_written());  // thread 5's is missing
  run(access("st.global.u32 [%d3], %r1;"), {out.address()});
  CHECK(out.all_written());
  CHECK_THROWS(Fault, "race: write", run(access("st.global.u32 [%d1], %r1;"), {out.address()}));
  // Blocks are ordered by nothing.
  CHECK_THROWS(Fault, "thread 0 of block 1",
               run(access("st.global.u32 [%d3], %r1;"), {out.address()}, {{2, 1, 1}, {32, 1, 1}}));
  CHECK_THROWS(Fault, "out of bounds", run(access("ld.param.u64 %d5, [p0+8];"), {in.address()}));
}

TEST(divergence) {
  std::string some = "mov.u32 %r1, %tid.x; setp.gt.u32 %p1, %r1, 3;\n";
  CHECK_THROWS(Fault, "divergent barrier",
               run(module(some + "@%p1 bra A;\nbar.sync 0;\nbra B;\nA: bar.sync 0;\nB:", 0), {}));
  CHECK_THROWS(Fault, "deadlock: not all threads come to where these wait: thread 4",
               run(module(some + "@%p1 bar.sync 0;", 0), {}));
  CHECK_THROWS(Fault, "deadlock",
               run(module(some + "@%p1 shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;", 0), {}));
  CHECK_THROWS(Fault, "divergent warp",
               run(module(some + "@%p1 bra A;\nbar.warp.sync -1;\nA: bar.warp.sync -1;", 0), {}));
  CHECK_THROWS(Fault, "mask of some lanes", run(module("bar.warp.sync 15;", 0), {}));
  CHECK_THROWS(Fault, "bad barrier", run(module("bar.sync 0, 33;", 0), {}, two_warps));
  // Warps may part: each has its own barrier, and its own place for it.
  run(module("mov.u32 %r1, %tid.x; setp.ge.u32 %p1, %r1, 32;\n@%p1 bra A;\nbar.sync 1, 32;\n"
             "bar.sync 0;\nret;\nA: bar.sync 2, 32;\nbar.sync 0;",
             0),
      {}, two_warps);
  CHECK_THROWS(Fault, "endless loop", run(module("A: bra A;", 0), {}));
}

TEST(copies_in_flight) {
  Numbers<uint32_t> in(std::vector<uint32_t>(128, 7));
  auto text = [](const std::string& after) {
    return module(".shared .align 16 .b8 t[1024];\nld.param.u64 %d1, [p0];\nmov.u32 %r1, %tid.x;\n"
                  "shl.b32 %r2, %r1, 4;\ncvt.u64.u32 %d2, %r2;\nadd.s64 %d1, %d1, %d2;\n"
                  "mov.u32 %r3, t;\nadd.s32 %r4, %r3, %r2;\nxor.b32 %r5, %r2, 256;\n"
                  "add.s32 %r5, %r5, %r3;\n"
                  "cp.async.cg.shared.global [%r4], [%d1], 16;\ncp.async.commit_group;\n" +
                      after,
                  1);
  };
  std::string read_own = "ld.shared.u32 %r6, [%r4];\n", read_other = "ld.shared.u32 %r6, [%r5];\n";
  std::string wait = "cp.async.wait_group 0;\n", sync = "bar.warp.sync -1;\n";
  auto run_with = [&](const std::string& after) { run(text(after), {in.address()}); };
  run_with(wait + read_own);
  run_with(wait + sync + read_other);
  CHECK_THROWS(Fault, "in flight", run_with(read_own + wait));
  CHECK_THROWS(Fault, "in flight", run_with("cp.async.wait_group 1;\n" + read_own + wait));
  CHECK_THROWS(Fault, "uninitialised", run_with(wait + read_other));  // the other is not there yet
  CHECK_THROWS(Fault, "in flight", run_with(sync + read_other + wait));
  CHECK_THROWS(Fault, "in flight", run_with("st.shared.u32 [%r4], %r1;\n" + wait));
  CHECK_THROWS(Fault, "ends with copies in flight", run_with(""));
  CHECK_THROWS(Fault, "misaligned", run_with("cp.async.cg.shared.global [%r4+8], [%d1], 16;"));
  CHECK_THROWS(Fault, "bad copy", run_with("cp.async.cg.shared.global [%r4+512], [%d1], 8;"));
  // What is not to be read is zero.
  Numbers<uint32_t> out(64);
  std::string partly = text("ld.param.u64 %d9, [p1];\nshr.u32 %r2, %r2, 1;\n"
                            "cvt.u64.u32 %d2, %r2;\nadd.s64 %d9, %d9, %d2;\nmov.u32 %r7, 4;\n"
                            "cp.async.cg.shared.global [%r4+512], [%d1], 16, %r7;\n"
                            "cp.async.wait_all;\nld.shared.v2.u32 {%r8, %r9}, [%r4+512];\n"
                            "st.global.v2.u32 [%d9], {%r8, %r9};\n");
  partly.replace(partly.find(".u64 p0"), 7, ".u64 p0, .param .u64 p1");
  run(partly, {in.address(), out.address()});
  CHECK(out.values()[62] == 7 && out.values()[63] == 0);
}

TEST(bad_launches) {
  CHECK_THROWS(Fault, "blocks of 48 threads", run(module("", 0), {}, {{}, {48, 1, 1}}));
  CHECK_THROWS(Fault, "bad launch", run(module("", 0), {}, {{}, {32, 1, 1}, 300 * 1024}));
}

TEST(wavefronts_and_sectors) {
  Numbers<uint32_t> in(std::vector<uint32_t>(32 * 32, 7));
  // A column of a matrix of 32 numbers a row; then one of 33 a row.
  auto text = [](int row) {
    return module(".shared .align 16 .b8 t[4300];\nld.param.u64 %d1, [p0];\nmov.u32 %r1, %tid.x;\n"
                  "mul.lo.s32 %r2, %r1, " +
                      std::to_string(4 * row) +
                      ";\nmov.u32 %r3, t;\n"
                      "add.s32 %r3, %r3, %r2;\nst.shared.u32 [%r3], %r1;\n"
                      "cvt.u64.u32 %d2, %r2;\nadd.s64 %d1, %d1, %d2;\n"
                      "setp.gt.u32 %p1, %r1, 30;\n@%p1 ret;\nld.global.u32 %r4, [%d1];\n",
                  1);
  };
  emulator::count_traffic(true);
  auto cost = [&](int row, bool shared) {
    emulator::clear_traffic();
    run(text(row), {in.address()});
    for (const emulator::Traffic& t : emulator::traffic())
      if (t.shared == shared) return t.cost;
    return uint64_t(0);
  };
  CHECK(cost(32, true) == 32);
  CHECK(cost(33, true) == 1);
  CHECK(cost(1, true) == 1);
  CHECK(cost(1, false) == 4);  // 31 numbers in a row: 4 sectors
  CHECK(cost(8, false) == 31);
  emulator::count_traffic(false);
}
