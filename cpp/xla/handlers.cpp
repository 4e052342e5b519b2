// The handlers of the CPU: a call of XLA's as a checked problem, computed on XLA's own threads.
#include "attention.hpp"
#include "cpu/parallel.hpp"
#include "xla.hpp"
#include "xla/answer.hpp"
#include "xla/call.hpp"

namespace fanano {
namespace {

namespace ffi = xla::ffi;

// XLA's pool for work inside of an operation. It must not be blocked by what waits for its threads,
// and need not be: parallel_for waits only for helpers that have begun.
class XlaThreads final : public Scheduler {
 public:
  explicit XlaThreads(ffi::ThreadPool& pool) : pool_(pool) {}
  void schedule(std::function<void()> help) override { pool_.Schedule(std::move(help)); }

  // 0, as many as fanano has, from a jaxlib that does not tell.
  int count() const { return int(std::min<int64_t>(pool_.num_threads(), most_threads)); }

 private:
  ffi::ThreadPool& pool_;
};

// compute(threads) in the threads of XLA's pool.
template <class F> ffi::Error on_threads_of(ffi::ThreadPool& pool, F compute) {
  XlaThreads threads(pool);
  Borrowed borrowed(&threads);
  return answer([&] { compute(threads.count()); });
}

ffi::Error attention(ffi::ThreadPool pool, ffi::Dictionary attributes, ffi::RemainingArgs operands,
                     ffi::RemainingRets results) {
  return on_threads_of(pool, [&](int threads) {
    Call call(attributes, operands, results);
    forward(call.attention().problem(), threads);
  });
}

ffi::Error attention_backward(ffi::ThreadPool pool, ffi::Dictionary attributes,
                              ffi::RemainingArgs operands, ffi::RemainingRets results) {
  return on_threads_of(pool, [&](int threads) {
    Call call(attributes, operands, results);
    backward(call.attention_backward().problem(), threads);
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
