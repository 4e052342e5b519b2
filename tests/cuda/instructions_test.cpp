// Each row of the instruction table, against the host's own arithmetic or numbers known beforehand.
#include <bit>
#include <limits>

#include "../cpp/check.hpp"
#include "run_ptx.hpp"

using namespace run_ptx;

namespace {

// One instruction of one thread of a warp. Operands %a, %b, %c stand for registers of these types
// with these bits, and %o for the result's.
uint64_t one(const std::string& instruction, const std::string& to,
             const std::vector<std::pair<std::string, uint64_t>>& from) {
  Numbers<uint64_t> out(1);
  std::string body = ".reg ." + to + " %o;\n";
  std::vector<uint64_t> parameters{out.address()};
  for (size_t k = 0; k < from.size(); ++k) {
    std::string name = std::string("%") + char('a' + k);
    body += ".reg ." + from[k].first + " " + name + ";\n";
    if (from[k].first == "pred")
      body += "ld.param.u32 %r" + std::to_string(k) + ", [p" + std::to_string(k + 1) +
              "];\nsetp.ne.u32 " + name + ", %r" + std::to_string(k) + ", 0;\n";
    else
      body += "ld.param." + from[k].first + " " + name + ", [p" + std::to_string(k + 1) + "];\n";
    parameters.push_back(from[k].second);
  }
  body += instruction + ";\n";
  std::string stored = "%o", type = to;
  if (to == "pred") body += "selp.b64 %d3, 1, 0, %o;\n", stored = "%d3", type = "b64";
  // Every bit of the result's register, the rest zero.
  body += "mov.u32 %r9, %tid.x;\nsetp.ne.u32 %p8, %r9, 0;\n@%p8 bra DONE;\n"
          "ld.param.u64 %d1, [p0];\nmov.u64 %d2, 0;\nst.global.u64 [%d1], %d2;\n"
          "st.global." +
          type + " [%d1], " + stored + ";\nDONE:";
  run(module(body, int(parameters.size())), parameters);
  return out.values()[0];
}

uint64_t f32(float x) { return std::bit_cast<uint32_t>(x); }
uint64_t f64(double x) { return std::bit_cast<uint64_t>(x); }

const uint64_t nan32 = f32(std::numeric_limits<float>::quiet_NaN()), inf32 = f32(INFINITY);

struct Case {
  const char* instruction;
  const char* to;
  std::vector<std::pair<std::string, uint64_t>> from;
  uint64_t expected;
};

void expect(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    uint64_t got = one(c.instruction, c.to, c.from);
    char text[200];
    std::snprintf(text, sizeof text, "%s gives 0x%llx, not 0x%llx", c.instruction,
                  static_cast<unsigned long long>(got),
                  static_cast<unsigned long long>(c.expected));
    check::report(got == c.expected, __FILE__, __LINE__, text);
  }
}

}  // namespace

TEST(sums_and_products) {
  expect({
      {"add.s32 %o, %a, %b", "s32", {{"s32", 0x7fffffff}, {"s32", 2}}, 0x80000001},
      {"add.u16 %o, %a, %b", "u16", {{"u16", 0xffff}, {"u16", 3}}, 2},
      {"add.rn.f32 %o, %a, %b", "f32", {{"f32", f32(1)}, {"f32", f32(0x1p-24f)}}, f32(1)},
      {"sub.f64 %o, %a, %b", "f64", {{"f64", f64(1)}, {"f64", f64(0.75)}}, f64(0.25)},
      {"mul.lo.s32 %o, %a, %b", "s32", {{"s32", 0x10001}, {"s32", 0x10001}}, 0x20001},
      {"mul.hi.u32 %o, %a, %b", "u32", {{"u32", 0xffffffff}, {"u32", 0xffffffff}}, 0xfffffffe},
      {"mul.hi.s32 %o, %a, %b", "s32", {{"s32", 0xffffffff}, {"s32", 5}}, 0xffffffff},
      {"mul.wide.s32 %o, %a, %b", "s64", {{"s32", 0xffffffff}, {"s32", 2}}, ~uint64_t(1)},
      {"mul.wide.u32 %o, %a, %b", "u64", {{"u32", 0xffffffff}, {"u32", 2}}, 0x1fffffffe},
      {"mad.lo.s32 %o, %a, %b, 7", "s32", {{"s32", 3}, {"s32", 5}}, 22},
      {"mad.wide.u32 %o, %a, %b, %c",
       "u64",
       {{"u32", 1u << 31}, {"u32", 4}, {"u64", 1}},
       (uint64_t(1) << 33) + 1},
      {"fma.rn.f32 %o, %a, %a, %b",
       "f32",
       {{"f32", f32(1 + 0x1p-12f)}, {"f32", f32(-1)}},
       f32(0x1p-11f + 0x1p-24f)},
      {"div.s32 %o, %a, %b", "s32", {{"s32", uint32_t(-7)}, {"s32", 2}}, uint32_t(-3)},
      {"div.rn.f32 %o, %a, %b", "f32", {{"f32", f32(1)}, {"f32", f32(3)}}, f32(1.0f / 3)},
      {"rem.s32 %o, %a, %b", "s32", {{"s32", uint32_t(-7)}, {"s32", 2}}, uint32_t(-1)},
      {"rem.u64 %o, %a, %b", "u64", {{"u64", 17}, {"u64", 5}}, 2},
      {"neg.s32 %o, %a", "s32", {{"s32", 1}}, 0xffffffff},
      {"neg.f32 %o, %a", "f32", {{"f32", f32(0)}}, f32(-0.0f)},
      {"abs.s32 %o, %a", "s32", {{"s32", uint32_t(-9)}}, 9},
      {"abs.f64 %o, %a", "f64", {{"f64", f64(-9)}}, f64(9)},
      {"min.s32 %o, %a, %b", "s32", {{"s32", uint32_t(-1)}, {"s32", 1}}, 0xffffffff},
      {"min.u32 %o, %a, %b", "u32", {{"u32", uint32_t(-1)}, {"u32", 1}}, 1},
      {"max.s64 %o, %a, %b", "s64", {{"s64", uint64_t(-1)}, {"s64", 1}}, 1},
      {"max.f32 %o, %a, %b", "f32", {{"f32", nan32}, {"f32", f32(2)}}, f32(2)},
      {"min.f32 %o, %a, %b", "f32", {{"f32", f32(3)}, {"f32", nan32}}, f32(3)},
      {"max.f32 %o, %a, %b", "f32", {{"f32", f32(0)}, {"f32", 0x7f800001}}, f32(0)},
      {"max.f32 %o, %a, %b", "f32", {{"f32", f32(0)}, {"f32", f32(-0.0f)}}, f32(0)},
      {"max.f32 %o, %a, %b", "f32", {{"f32", f32(-0.0f)}, {"f32", f32(0)}}, f32(0)},
      {"min.f32 %o, %a, %b", "f32", {{"f32", f32(0)}, {"f32", f32(-0.0f)}}, f32(-0.0f)},
      {"min.f32 %o, %a, %b", "f32", {{"f32", f32(-0.0f)}, {"f32", f32(0)}}, f32(-0.0f)},
      {"sqrt.rn.f32 %o, %a", "f32", {{"f32", f32(2)}}, f32(std::sqrt(2.0f))},
      {"rcp.rn.f32 %o, %a", "f32", {{"f32", f32(3)}}, f32(1.0f / 3)},
      {"rcp.approx.ftz.f32 %o, %a", "f32", {{"f32", f32(3)}}, f32(1.0f / 3)},
      {"rcp.approx.ftz.f32 %o, %a", "f32", {{"f32", f32(-0x1p-130f)}}, f32(-INFINITY)},
      {"rcp.approx.ftz.f32 %o, %a", "f32", {{"f32", f32(0x1p127f)}}, 0},
      {"ex2.approx.ftz.f32 %o, %a", "f32", {{"f32", f32(-1.5f)}}, f32(std::exp2(-1.5f))},
      {"ex2.approx.ftz.f32 %o, %a", "f32", {{"f32", f32(-127)}}, f32(0)},
      {"lg2.approx.ftz.f32 %o, %a", "f32", {{"f32", f32(8)}}, f32(3)},
  });
}

TEST(words_with_carries) {
  expect({
      {"add.cc.u32 %r8, %a, %a; addc.u32 %o, %b, 0", "u32", {{"u32", 1u << 31}, {"u32", 5}}, 6},
      {"add.cc.s64 %d8, %a, %a; addc.cc.s64 %o, %b, %b",
       "s64",
       {{"s64", uint64_t(1) << 63}, {"s64", 2}},
       5},
      {"sub.cc.u32 %r8, %a, %b; subc.u32 %o, %b, %a", "u32", {{"u32", 1}, {"u32", 2}}, 0},
      {"sub.cc.s64 %d8, %a, %b; subc.cc.s64 %o, %a, %b", "s64", {{"s64", 9}, {"s64", 2}}, 7},
  });
}

TEST(bits_and_choices) {
  expect({
      {"and.b32 %o, %a, 12", "b32", {{"b32", 10}}, 8},
      {"or.b64 %o, %a, %b", "b64", {{"b64", 10}, {"b64", 5}}, 15},
      {"xor.b16 %o, %a, %b", "b16", {{"b16", 10}, {"b16", 3}}, 9},
      {"not.b32 %o, %a", "b32", {{"b32", 1}}, 0xfffffffe},
      {"and.pred %o, %a, %b", "pred", {{"pred", 1}, {"pred", 0}}, 0},
      {"xor.pred %o, %a, %b", "pred", {{"pred", 1}, {"pred", 0}}, 1},
      {"mov.pred %p7, -1; selp.b32 %o, %a, 0, %p7", "b32", {{"b32", 7}}, 7},
      {"not.pred %o, %a", "pred", {{"pred", 1}}, 0},
      {"shl.b32 %o, %a, 31", "b32", {{"b32", 3}}, 0x80000000},
      {"shl.b32 %o, %a, 32", "b32", {{"b32", 3}}, 0},
      {"shr.s32 %o, %a, 4", "s32", {{"s32", 0x80000000}}, 0xf8000000},
      {"shr.s32 %o, %a, 99", "s32", {{"s32", 0x80000000}}, 0xffffffff},
      {"shr.u64 %o, %a, 60", "u64", {{"u64", ~uint64_t(0)}}, 15},
      {"shr.u32 %o, %a, 32", "u32", {{"u32", 7}}, 0},
      {"shf.l.wrap.b32 %o, %a, %b, 4", "b32", {{"b32", 0xf0000000}, {"b32", 1}}, 0x1f},
      {"shf.r.wrap.b32 %o, %a, %b, 4", "b32", {{"b32", 0x10}, {"b32", 0xf}}, 0xf0000001},
      {"bfi.b32 %o, %a, %b, 8, 4", "b32", {{"b32", 0xff}, {"b32", 0}}, 0xf00},
      {"bfi.b64 %o, %a, %b, 0, 64", "b64", {{"b64", 7}, {"b64", 1}}, 7},
      {"popc.b32 %o, %a", "b32", {{"b32", 0xf0f}}, 8},
      {"clz.b32 %o, %a", "b32", {{"b32", 1}}, 31},
      {"prmt.b32 %o, %a, %b, 0x5410",
       "b32",
       {{"b32", 0x1111aaaa}, {"b32", 0x2222bbbb}},
       0xbbbbaaaa},
      {"selp.f32 %o, %a, %b, %c", "f32", {{"f32", f32(1)}, {"f32", f32(2)}, {"pred", 0}}, f32(2)},
  });
}

TEST(comparisons) {
  expect({
      {"setp.lt.s32 %o, %a, %b", "pred", {{"s32", uint32_t(-1)}, {"s32", 0}}, 1},
      {"setp.lt.u32 %o, %a, %b", "pred", {{"u32", uint32_t(-1)}, {"u32", 0}}, 0},
      {"setp.hs.u32 %o, %a, %b", "pred", {{"u32", 3}, {"u32", 3}}, 1},
      {"setp.lo.u32 %o, %a, %b", "pred", {{"u32", 3}, {"u32", 3}}, 0},
      {"setp.ne.f32 %o, %a, %a", "pred", {{"f32", nan32}}, 0},
      {"setp.neu.f32 %o, %a, %a", "pred", {{"f32", nan32}}, 1},
      {"setp.leu.f32 %o, %a, %b", "pred", {{"f32", nan32}, {"f32", f32(0)}}, 1},
      {"setp.gtu.f64 %o, %a, %b", "pred", {{"f64", f64(1)}, {"f64", f64(2)}}, 0},
      {"setp.nan.f32 %o, %a, %b", "pred", {{"f32", f32(1)}, {"f32", nan32}}, 1},
      {"setp.num.f32 %o, %a, %b", "pred", {{"f32", f32(1)}, {"f32", f32(2)}}, 1},
      {"setp.eq.and.s32 %o|%p7, %a, 1, %b", "pred", {{"s32", 1}, {"pred", 0}}, 0},
      {"setp.eq.or.s32 %p7|%o, %a, 1, %b", "pred", {{"s32", 1}, {"pred", 1}}, 1},
      {"setp.eq.xor.s32 %o, %a, 1, %b", "pred", {{"s32", 1}, {"pred", 1}}, 0},
  });
}

TEST(conversions) {
  expect({
      {"cvt.s64.s32 %o, %a", "s64", {{"s32", uint32_t(-2)}}, uint64_t(-2)},
      {"cvt.u64.u32 %o, %a", "u64", {{"u32", uint32_t(-2)}}, uint32_t(-2)},
      {"cvt.u32.u16 %o, %a", "u32", {{"u16", 0xffff}}, 0xffff},
      {"cvt.s32.s16 %o, %a", "s32", {{"s16", 0xffff}}, 0xffffffff},
      {"cvt.u16.u32 %o, %a", "u16", {{"u32", 0x12345678}}, 0x5678},
      {"cvt.rn.f32.s32 %o, %a", "f32", {{"s32", 0x1000001}}, f32(0x1000000)},
      {"cvt.rn.f64.s64 %o, %a", "f64", {{"s64", uint64_t(-3)}}, f64(-3)},
      {"cvt.rn.f32.f64 %o, %a", "f32", {{"f64", f64(0.1)}}, f32(0.1f)},
      {"cvt.f64.f32 %o, %a", "f64", {{"f32", f32(0.1f)}}, f64(0.1f)},
      {"cvt.rzi.s32.f32 %o, %a", "s32", {{"f32", f32(-2.75f)}}, uint32_t(-2)},
      {"cvt.rni.s32.f32 %o, %a", "s32", {{"f32", f32(2.5f)}}, 2},
      {"cvt.rmi.f32.f32 %o, %a", "f32", {{"f32", f32(-2.5f)}}, f32(-3)},
      {"cvt.rpi.f32.f32 %o, %a", "f32", {{"f32", f32(2.25f)}}, f32(3)},
      {"cvt.rzi.s32.f32 %o, %a", "s32", {{"f32", f32(3e9f)}}, 0x7fffffff},
      {"cvt.rzi.u32.f32 %o, %a", "u32", {{"f32", f32(-1)}}, 0},
      {"cvt.rzi.s32.f32 %o, %a", "s32", {{"f32", nan32}}, 0},
      {"cvt.f32.f16 %o, %a", "f32", {{"b16", 0x0001}}, f32(0x1p-24f)},
      {"cvt.rn.f16.f32 %o, %a", "b16", {{"f32", f32(65520)}}, 0x7c00},
      {"cvt.f32.bf16 %o, %a", "f32", {{"b16", 0x3f80}}, f32(1)},
      {"cvt.rn.bf16.f32 %o, %a", "b16", {{"f32", 0x3f808000}}, 0x3f80},
      {"cvt.rn.bf16.f32 %o, %a", "b16", {{"f32", 0x3f818000}}, 0x3f82},
      {"cvt.rn.bf16.f32 %o, %a", "b16", {{"f32", inf32}}, 0x7f80},
      {"cvt.rn.bf16x2.f32 %o, %a, %b", "b32", {{"f32", f32(1)}, {"f32", f32(2)}}, 0x3f804000},
      {"cvt.rn.f16x2.f32 %o, %a, %b", "b32", {{"f32", f32(1)}, {"f32", f32(2)}}, 0x3c004000},
      {"mov.b32 %o, {%a, %b}", "b32", {{"b16", 1}, {"b16", 2}}, 0x20001},
      {"mov.b64 {%r8, %o}, %a", "b32", {{"b64", 0x100000002}}, 1},
      {"mov.f32 %o, 0f3F800000", "f32", {}, f32(1)},
      {"mov.f64 %o, 0dBFF0000000000000", "f64", {}, f64(-1)},
      {"mov.u32 %o, -1", "u32", {}, 0xffffffff},
  });
}

TEST(what_is_not_known_is_refused) {
  auto refused = [](const std::string& line, const char* words) {
    CHECK_THROWS(std::runtime_error, words, run(module(line, 0), {}));
  };
  refused("add.sat.s32 %r1, %r2, %r3;", "unsupported instruction add.sat.s32");
  refused("add.rz.f32 %f1, %f2, %f3;", "unsupported instruction add.rz.f32");
  refused("wgmma.fence.sync.aligned;", "unsupported instruction wgmma.fence");
  refused("cvt.s32.f32 %r1, %f1;", "unsupported instruction cvt.s32.f32");
  refused("and.f32 %f1, %f1, %f1;", "unsupported");
  refused("add.s32 %r1, %r2;", "unsupported");
  refused("mov.u32 %r1, %q;", "PTX line 9: nothing is called %q");
  refused("bra NOWHERE;", "no label NOWHERE");
  refused(".local .align 4 .b8 x[4];", "declarations of .local");
}

TEST(parts_of_a_warp) {
  // Each lane sends its number by each shuffle, and stores what came and whether it came from
  // within.
  Numbers<uint32_t> out(6 * 32);
  run(module(R"(
    ld.param.u64 %d1, [p0];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %d2, %r1, 4;
    add.s64 %d1, %d1, %d2;
    shfl.sync.bfly.b32 %r2, %r1, 5, 31, -1;
    shfl.sync.up.b32 %r3|%p1, %r1, 3, 0, -1;
    shfl.sync.down.b32 %r4, %r1, 2, 0x181f, -1;
    shfl.sync.idx.b32 %r5, %r1, 7, 31, -1;
    setp.gt.u32 %p2, %r1, 29;
    vote.sync.ballot.b32 %r6, %p2, -1;
    selp.u32 %r7, 1, 0, %p1;
    st.global.u32 [%d1], %r2;
    st.global.u32 [%d1+128], %r3;
    st.global.u32 [%d1+256], %r4;
    st.global.u32 [%d1+384], %r5;
    st.global.u32 [%d1+512], %r6;
    st.global.u32 [%d1+640], %r7;)",
             1),
      {out.address()});
  std::vector<uint32_t> got = out.values();
  for (uint32_t l = 0; l < 32; ++l) {
    CHECK(got[l] == (l ^ 5));
    CHECK(got[32 + l] == (l < 3 ? l : l - 3));
    CHECK(got[64 + l] == (l % 8 < 6 ? l + 2 : l));  // segments of 8
    CHECK(got[96 + l] == 7);
    CHECK(got[128 + l] == 0xc0000000);
    CHECK(got[160 + l] == (l >= 3));
  }
}

TEST(votes_of_a_block) {
  // Threads vote whether they are below 40, and below 64.
  Numbers<uint32_t> out(4 * 64);
  run(module(R"(
    ld.param.u64 %d1, [p0];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %d2, %r1, 4;
    add.s64 %d1, %d1, %d2;
    setp.lt.u32 %p1, %r1, 40;
    setp.lt.u32 %p2, %r1, 64;
    setp.ge.u32 %p3, %r1, 64;
    bar.red.and.pred %p4, 0, %p1;
    bar.red.and.pred %p5, 0, %p2;
    bar.red.or.pred %p6, 1, 64, %p1;
    bar.red.or.pred %p7, 0, %p3;
    selp.u32 %r2, 1, 0, %p4;
    selp.u32 %r3, 1, 0, %p5;
    selp.u32 %r4, 1, 0, %p6;
    selp.u32 %r5, 1, 0, %p7;
    st.global.u32 [%d1], %r2;
    st.global.u32 [%d1+256], %r3;
    st.global.u32 [%d1+512], %r4;
    st.global.u32 [%d1+768], %r5;)",
             1),
      {out.address()}, {{}, {64, 1, 1}});
  const std::vector<uint32_t> got = out.values();
  for (size_t t = 0; t < 64; ++t) {
    CHECK(got[t] == 0);
    CHECK(got[64 + t] == 1);
    CHECK(got[128 + t] == 1);
    CHECK(got[192 + t] == 0);
  }
}

TEST(matrices) {
  // A is 16 x 16, B 16 x 8, row after row; both come in by ldmatrix, B transposed, and D = A B + 1.
  std::vector<uint16_t> a(256), b(128);
  for (int n = 0; n < 256; ++n) a[n] = std::bit_cast<uint32_t>(float(n % 13 - 6)) >> 16;
  for (int n = 0; n < 128; ++n) b[n] = std::bit_cast<uint32_t>(float(n % 7 - 3)) >> 16;
  Numbers<uint16_t> from_a(a), from_b(b);
  Numbers<float> out(128);
  std::string text = module(R"(
    .shared .align 16 .b8 tile[768];
    ld.param.u64 %d1, [p0]; ld.param.u64 %d2, [p1]; ld.param.u64 %d3, [p2];
    mov.u32 %r1, %tid.x;
    shl.b32 %r2, %r1, 4;
    cvt.u64.u32 %d4, %r2;
    add.s64 %d1, %d1, %d4; add.s64 %d2, %d2, %d4;
    mov.u32 %r3, tile;
    add.s32 %r4, %r3, %r2;
    cp.async.cg.shared.global [%r4], [%d1], 16;
    setp.ge.u32 %p1, %r1, 16;
    @%p1 bra NEXT;
    cp.async.ca.shared.global.L2::128B [%r4+512], [%d2], 16;
  NEXT:
    cp.async.commit_group;
    cp.async.wait_group 0;
    bar.warp.sync -1;
    and.b32 %r5, %r1, 15;
    shl.b32 %r6, %r5, 5;
    shr.u32 %r7, %r1, 4;
    shl.b32 %r7, %r7, 4;
    add.s32 %r8, %r3, %r6;
    add.s32 %r8, %r8, %r7;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r8];
    shl.b32 %r9, %r5, 4;
    add.s32 %r9, %r3, %r9;
    ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r14, %r15}, [%r9+512];
    mov.f32 %f1, 0f3F800000;
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f2, %f3, %f4, %f5},
        {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f1, %f1, %f1, %f1};
    shl.b32 %r16, %r1, 3;
    cvt.u64.u32 %d5, %r16;
    add.s64 %d3, %d3, %d5;
    st.global.v2.f32 [%d3], {%f2, %f3};
    st.global.v2.f32 [%d3+256], {%f4, %f5};)",
                            3);
  run(text, {from_a.address(), from_b.address(), out.address()});
  for (int r = 0; r < 16; ++r)
    for (int c = 0; c < 8; ++c) {
      float sum = 1;
      for (int k = 0; k < 16; ++k) sum += float((r * 16 + k) % 13 - 6) * float((k * 8 + c) % 7 - 3);
      CHECK(out.values()[r * 8 + c] == sum);
    }
}
