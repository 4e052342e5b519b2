// The handlers of CUDA devices: launches on the stream that XLA's program runs on.
//
// XLA is not told that it may record them in a CUDA graph: it would replay that with a workspace
// that has been given to others since.
#include "cuda.hpp"
#include "xla.hpp"
#include "xla/answer.hpp"
#include "xla/call.hpp"

namespace fanano {
namespace {

namespace ffi = xla::ffi;

constexpr int64_t alignment = 256;

// Device memory until the handler returns; what XLA puts there next comes after our launches.
void* workspace_of(ffi::ScratchAllocator& scratch, int64_t bytes) {
  if (bytes == 0) return nullptr;
  std::optional<void*> memory = scratch.Allocate(size_t(bytes), size_t(alignment));
  if (!memory) throw std::bad_alloc();
  return *memory;
}

ffi::Error attention(void* stream, ffi::ScratchAllocator scratch, ffi::Dictionary attributes,
                     ffi::RemainingArgs operands, ffi::RemainingRets results) {
  return answer([&] {
    Call call(attributes, operands, results, Call::on_device);
    const Problem& p = call.attention().problem();
    void* workspace = workspace_of(scratch, device_workspace(p, call.device_options()));
    forward_on_device(p, device_of(stream), stream, workspace, call.device_options());
  });
}

ffi::Error attention_backward(void* stream, ffi::ScratchAllocator scratch,
                              ffi::Dictionary attributes, ffi::RemainingArgs operands,
                              ffi::RemainingRets results) {
  return answer([&] {
    Call call(attributes, operands, results, Call::on_device);
    const Problem& p = call.attention_backward().problem();
    void* workspace = workspace_of(scratch, backward_device_workspace(p, call.device_options()));
    backward_on_device(p, device_of(stream), stream, workspace, call.device_options());
  });
}

XLA_FFI_DEFINE_HANDLER(attention_handler, attention,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::PlatformStream<void*>>()
                           .Ctx<ffi::ScratchAllocator>()
                           .Attrs()
                           .RemainingArgs()
                           .RemainingRets());
XLA_FFI_DEFINE_HANDLER(attention_backward_handler, attention_backward,
                       ffi::Ffi::Bind()
                           .Ctx<ffi::PlatformStream<void*>>()
                           .Ctx<ffi::ScratchAllocator>()
                           .Attrs()
                           .RemainingArgs()
                           .RemainingRets());

void* registered(XLA_FFI_Error* (*handler)(XLA_FFI_CallFrame*)) {
  return built_with_cuda() ? reinterpret_cast<void*>(handler) : nullptr;
}

}  // namespace

void* xla_attention_cuda() { return registered(+attention_handler); }
void* xla_attention_backward_cuda() { return registered(+attention_backward_handler); }

}  // namespace fanano
