// The handlers of compiled JAX on a CUDA device, called as XLA would: its stream, its scratch
// memory, the small operands where it has them, and what it hears of errors.
#include <cmath>

#include "../cpp/check.hpp"
#include "cuda.hpp"
#include "device_gradients.hpp"
#include "emulator/runtime.hpp"
#include "xla.hpp"
#include "xla_frame.hpp"

using namespace attention_case;
using xla_frame::Answer, xla_frame::Context, xla_frame::Frame;

namespace {

constexpr auto f64 = XLA_FFI_DataType_F64, f32 = XLA_FFI_DataType_F32;
constexpr auto s64 = XLA_FFI_DataType_S64, s32 = XLA_FFI_DataType_S32;

XLA_FFI_DataType type_of(Dtype d) {
  switch (d) {
    case Dtype::float64: return f64;
    case Dtype::float32: return f32;
    case Dtype::bfloat16: return XLA_FFI_DataType_BF16;
    case Dtype::float16: return XLA_FFI_DataType_F16;
    default: return XLA_FFI_DataType_PRED;
  }
}

template <class T> std::vector<T> as(const std::vector<int64_t>& x) { return {x.begin(), x.end()}; }

// The operands that the forward and the backward share, as fanano.jax has them while x64 is off:
// int32, slopes float32; but for the sinks, so that they are the oracle's.
struct Call {
  Frame frame;
  Context context;
  Shape s;
  device::Buffer<int32_t> queries, keys;
  device::Buffer<int64_t> offsets;
  device::Buffer<float> slopes;
  device::Buffer<double> sinks;
  device::Buffer<uint32_t> dropout;

  Call(const Problem& p, const Case& c, const Numbers& x)
      : s(c.shape), queries(as<int32_t>(c.queries)), keys(as<int32_t>(c.keys)), offsets(c.offsets),
        slopes(std::vector<float>(x.slopes.begin(), x.slopes.end())), sinks(x.sinks),
        dropout(words(c.dropout)) {
    const XLA_FFI_DataType t = type_of(p.dtype);
    frame.word("layout", "bhsd");
    frame.operand("query", t, p.q.data, {s.batch, s.heads, s.queries, s.dim});
    frame.operand("key", t, p.k.data, {s.batch, s.kv_heads, s.keys, s.dim});
    frame.operand("value", t, p.v.data, {s.batch, s.kv_heads, s.keys, s.value_dim});
    if (!c.queries.empty()) frame.operand("q_lengths", s32, queries.data(), {s.batch});
    if (!c.keys.empty()) frame.operand("kv_lengths", s32, keys.data(), {s.batch});
    if (!c.offsets.empty()) frame.operand("q_offsets", s64, offsets.data(), {s.batch});
    if (c.slopes) frame.operand("alibi_slopes", f32, slopes.data(), {s.batch, s.heads});
    if (c.sinks) frame.operand("sinks", f64, sinks.data(), {s.heads});
    const Shape& m = x.mask_shape;
    if (c.masked)
      frame.operand("attn_mask", type_of(c.mask_dtype), p.mask.data,
                    {m.batch, m.heads, m.queries, m.keys});
    frame.integer("left", c.window.left), frame.integer("right", c.window.right);
    if (c.dropout.p) frame.operand("dropout", XLA_FFI_DataType_U32, dropout.data(), {6});
    if (c.dropout.p) frame.number("dropout_p", c.dropout.p);
    if (!std::isnan(c.scale)) frame.number("scale", c.scale);
    if (c.softcap) frame.number("softcap", c.softcap);
  }
  static std::vector<uint32_t> words(const Dropout& d) {
    auto low = [](auto x) { return uint32_t(x); };
    return {low(d.seed), low(d.seed >> 32), low(d.batch), low(d.head), low(d.row), low(d.column)};
  }
  std::vector<int64_t> rows() const { return {s.batch, s.heads, s.queries}; }
  std::vector<int64_t> out() const { return {s.batch, s.heads, s.queries, s.value_dim}; }
};

// `sent`: the numbers that XLA has there, if not those of the case.
template <class T> struct Forward : DeviceProblem<T>, Call {
  using DeviceProblem<T>::p;
  Forward(const Case& c, Dtype dtype) : Forward(c, dtype, c) {}
  Forward(const Case& c, Dtype dtype, const Case& sent)
      : DeviceProblem<T>(c, dtype), Call(p, sent, DeviceProblem<T>::numbers()) {
    frame.result("out", type_of(dtype), p.out.data, out());
    frame.result("lse", type_of(accumulator(dtype)), p.lse.data, rows());
  }
  Answer call() { return frame.call(xla_attention_cuda(), context); }
};

template <class T> struct Backward : DeviceGradients<T>, Call {
  using DeviceGradients<T>::p;
  Backward(const Case& c, Dtype dtype, Wanted wanted) : Backward(c, dtype, wanted, c) {}
  Backward(const Case& c, Dtype dtype, Wanted wanted, const Case& sent)
      : DeviceGradients<T>(c, dtype, wanted), Call(p, sent, DeviceGradients<T>::numbers()) {
    const XLA_FFI_DataType t = type_of(dtype), of_lse = type_of(accumulator(dtype));
    const Gradient& g = p.gradient;
    const Shape& m = DeviceGradients<T>::numbers().mask_shape;
    frame.operand("out", t, p.out.data, out());
    frame.operand("lse", of_lse, p.lse.data, rows());
    frame.operand("dout", t, g.dout.data, out());
    if (wanted.dlse) frame.operand("dlse", of_lse, g.dlse.data, rows());
    frame.result("dq", t, g.dq.data, {s.batch, s.heads, s.queries, s.dim});
    frame.result("dk", t, g.dk.data, {s.batch, s.kv_heads, s.keys, s.dim});
    frame.result("dv", t, g.dv.data, {s.batch, s.kv_heads, s.keys, s.value_dim});
    if (wanted.dbias)
      frame.result("dbias", type_of(c.mask_dtype), g.dbias.data,
                   {m.batch, m.heads, m.queries, m.keys});
    if (c.sinks) frame.result("dsinks", of_lse, g.dsinks.data, {s.heads});
  }
  Answer call() { return frame.call(xla_attention_backward_cuda(), context); }
};

Case options() {
  Case c{{3, 2, 1, 20, 70, 64, 64}, {-1, 0}};
  c.queries = {20, 0, 7}, c.keys = {70, 67, 5}, c.offsets = {50, 0, -2};
  c.slopes = c.sinks = true;
  return c;
}

}  // namespace

TEST(attention_of_every_dtype) {
  for (Dtype dtype : {Dtype::float64, Dtype::float32, Dtype::bfloat16, Dtype::float16})
    device::with_type(dtype, [&]<class T>() {
      Forward<T> problem({{2, 4, 2, 5, 40, 64, 40}, {9, 0}}, dtype);
      CHECK(problem.call().words == "");
      problem.judge("attention");
      CHECK(problem.context.most_scratch == 0);  // there was nothing to put there
    });
}

TEST(every_option_stays_on_the_device) {
  for (bool additive : {false, true}) {
    Case c = options();
    c.masked = true, c.mask_dtype = additive ? Dtype::float32 : Dtype::boolean;
    c.extends[1] = false, c.softcap = 2, c.scale = -0.3;
    c.dropout = {0.3, 0x123456789abcdef0, 3, 5, 7, UINT32_MAX - 3};
    Forward<bfloat16> problem(c, Dtype::bfloat16);
    emulator::take_calls();
    CHECK(problem.call().words == "");
    for (const emulator::Call& call : emulator::take_calls())
      CHECK(call.what.find("upload_kernel") == std::string::npos);
    problem.judge("attention");
  }
}

TEST(its_stream_its_device_and_its_memory) {
  emulator::machine().devices = 3, emulator::machine().device_of_streams = 2;
  int stream = 0;
  Forward<float16> problem(options(), Dtype::float16);
  problem.context.stream = &stream;
  emulator::take_calls();
  CHECK(problem.call().words == "");
  int launches = 0;
  for (const emulator::Call& call : emulator::take_calls()) {
    CHECK(call.what.find("Synchronize") == std::string::npos);
    CHECK(call.what.find("Memcpy") == std::string::npos);
    if (call.what.find("_kernel") == std::string::npos) continue;
    CHECK(call.stream == &stream && call.device == 2);
    ++launches;
  }
  CHECK(launches == 4 + 2);  // the offsets are read where they are; some sequences may be decode's
  problem.judge("attention");
  CHECK(problem.context.most_scratch == 8 * (3 + 3 + 6 + 2));
  CHECK(problem.context.kept.empty());
  emulator::machine() = {};
}

TEST(gradients) {
  Case c = options();
  c.masked = true, c.mask_dtype = Dtype::float32, c.extends[0] = false;
  c.dropout = {0.3, 0x123456789abcdef0, 3, 5, 7, 9};
  Backward<float> problem(c, Dtype::float32, {.dlse = true, .dbias = true});
  CHECK(problem.call().words == "");
  problem.judge("attention_backward");
  CHECK(problem.context.kept.empty());
}

// Under a trace nobody looks at numbers: lengths of any 32 bits and offsets of any 64 count as the
// nearest that there are, and no access leaves the arrays.
TEST(wild_numbers_are_clamped) {
  constexpr int64_t far = 1000000;  // all keys are seen, or none
  Case near{{5, 2, 1, 20, 70, 64, 64}, {-1, 0}};
  near.sinks = true;
  Case sent = near;
  near.queries = {20, 20, 7, 0, 20}, near.keys = {70, 67, 70, 70, 0};
  near.offsets = {far, -far, far, -far, far};
  sent.queries = {INT32_MAX, INT32_MAX, 7, INT32_MIN, INT32_MAX};
  sent.keys = {INT32_MAX, 67, INT32_MAX, INT32_MAX, INT32_MIN};
  sent.offsets = {INT64_MAX, INT64_MIN, INT64_MAX, INT64_MIN, INT64_MAX};
  for (bool window : {false, true}) {  // that reaches from there back to the keys
    near.window.left = window ? far : -1, sent.window.left = window ? INT64_MAX : -1;
    for (Dtype dtype : {Dtype::float32, Dtype::float16})
      device::with_type(dtype, [&]<class T>() {
        Forward<T> forward(near, dtype, sent);
        CHECK(forward.call().words == "");
        forward.judge("attention");
        Backward<T> backward(near, dtype, {.dlse = true}, sent);
        CHECK(backward.call().words == "");
        backward.judge("attention_backward");
      });
  }
}

TEST(what_it_hears_of_errors) {
  const Case c{{1, 2, 1, 4, 9, 64, 64}};
  auto says = [](const Answer& answer, XLA_FFI_Error_Code code, const char* words) {
    const bool right = answer.code == code && answer.words.find(words) != std::string::npos;
    if (!right) std::printf("%d: %s\n", int(answer.code), answer.words.c_str());
    return right;
  };
  Forward<float16> wrong(c, Dtype::float16);
  wrong.frame.result("lse", f32, wrong.p.lse.data, {1, 2, 5});
  CHECK(says(wrong.call(), XLA_FFI_Error_Code_INVALID_ARGUMENT, "lse must have shape (1, 2, 4)"));
  Forward<float16> ints(c, Dtype::float16);
  ints.frame.operand("sinks", s32, ints.sinks.data(), {2});
  CHECK(says(ints.call(), XLA_FFI_Error_Code_INTERNAL, "sinks: must be float32 or float64"));

  Forward<float16> greedy(options(), Dtype::float16);
  greedy.context.has_memory = false;
  CHECK(says(greedy.call(), XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "fanano: out of memory"));
  emulator::machine().launch_error = cudaErrorLaunchOutOfResources;
  CHECK(says(Forward<float16>(c, Dtype::float16).call(), XLA_FFI_Error_Code_INTERNAL,
             "(float16) failed on CUDA device 0: "));
  emulator::machine() = {};
}

TEST(no_graph_may_keep_a_workspace_that_is_given_back) {
  for (void* handler : {xla_attention_cuda(), xla_attention_backward_cuda()}) {
    const XLA_FFI_Metadata data = xla_frame::metadata(handler);
    CHECK(data.traits == 0);
    CHECK(data.api_version.minor_version == XLA_FFI_API_MINOR);
  }
}
