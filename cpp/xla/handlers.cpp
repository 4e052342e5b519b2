// The handlers themselves: a call of XLA's as a checked problem, computed on XLA's own threads.
#include <exception>
#include <new>

#include "attention.hpp"
#include "cpu/parallel.hpp"
#include "errors.hpp"
#include "xla.hpp"
#include "xla/call.hpp"

namespace fanano {
namespace {

namespace ffi = xla::ffi;

// XLA's pool for work inside of an operation. It must not be blocked by what waits for its threads,
// and need not be: parallel_for waits only for helpers that have begun.
class XlaThreads final : public Lender {
 public:
  explicit XlaThreads(ffi::ThreadPool& pool) : pool_(pool) {}
  void schedule(std::function<void()> help) override { pool_.Schedule(std::move(help)); }

  // 0, as many as fanano has, from a jaxlib that does not tell.
  int count() const { return int(std::min<int64_t>(pool_.num_threads(), most_threads)); }

 private:
  ffi::ThreadPool& pool_;
};

// compute(threads), with whatever it throws as XLA wants to hear of it.
template <class F> ffi::Error on_threads_of(ffi::ThreadPool& pool, F compute) {
  XlaThreads threads(pool);
  Borrowed borrowed(threads);
  try {
    compute(threads.count());
    return ffi::Error::Success();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "fanano: out of memory");
  } catch (const TypeError& error) {
    return ffi::Error::InvalidArgument(error.what());
  } catch (const ValueError& error) {
    return ffi::Error::InvalidArgument(error.what());
  } catch (const NotImplementedError& error) {
    return ffi::Error(ffi::ErrorCode::kUnimplemented, error.what());
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

ffi::Error attention(ffi::ThreadPool pool, ffi::Dictionary attributes, ffi::RemainingArgs operands,
                     ffi::RemainingRets results) {
  return on_threads_of(pool, [&](int threads) {
    Call call(attributes, operands, results);
    Request request = call.request();
    request.out = call.result("out"), request.lse = call.result("lse");
    Description description(request);
    if (!request.out) throw std::runtime_error("fanano: attention without an out");
    forward(description.problem(), threads);
  });
}

ffi::Error attention_backward(ffi::ThreadPool pool, ffi::Dictionary attributes,
                              ffi::RemainingArgs operands, ffi::RemainingRets results) {
  return on_threads_of(pool, [&](int threads) {
    Call call(attributes, operands, results);
    Description description(call.request());
    const Array *dout = call.operand("dout"), *out = call.operand("out");
    const Array* lse = call.operand("lse");
    GradientArrays to{call.result("dq"), call.result("dk"), call.result("dv"), call.result("dbias"),
                      call.result("dsinks")};
    if (!dout || !out || !lse || !to.dq || !to.dk || !to.dv)
      throw std::runtime_error("fanano: attention_backward without all of its arrays");
    description.read({*dout, *out, *lse, call.operand("dlse"), to.dbias != nullptr});
    description.write_to(to);
    backward(description.problem(), threads);
  });
}

XLA_FFI_DEFINE_HANDLER(
    attention_handler, attention,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attrs().RemainingArgs().RemainingRets());
XLA_FFI_DEFINE_HANDLER(
    attention_backward_handler, attention_backward,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Attrs().RemainingArgs().RemainingRets());

}  // namespace

std::pair<int, int> xla_version() { return {XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR}; }
void* xla_attention() { return reinterpret_cast<void*>(+attention_handler); }
void* xla_attention_backward() { return reinterpret_cast<void*>(+attention_backward_handler); }

}  // namespace fanano
