#include "attention.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <new>
#include <numeric>

#include "array.hpp"

#include "cpu/isa.hpp"
#include "cpu/kernels.hpp"
#include "cpu/parallel.hpp"
#include "cuda.hpp"
#include "float_mode.hpp"

namespace fanano {

namespace {

// Aligned bytes, uninitialised.
struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, Free>;

Memory allocate(int64_t bytes) {
  constexpr int64_t line = 64;
  if (bytes > INT64_MAX - line) throw std::bad_alloc();
  void* p = std::aligned_alloc(line, size_t((bytes + line - 1) / line * line + line));
  if (!p) throw std::bad_alloc();
  return Memory(p);
}

// Scratch of small calls is kept by the calling thread: asking the system for zeroed pages each
// time costs more than the attention of a few tokens.
constexpr int64_t kept_bytes = 8 << 20;

class ScratchMemory {
 public:
  explicit ScratchMemory(int64_t bytes) {
    if (kept_size_ < bytes || !kept_) {
      kept_ = allocate(bytes);
      kept_size_ = bytes;
    }
    memory_ = std::move(kept_);
    size_ = kept_size_;
    kept_size_ = 0;
  }
  ~ScratchMemory() {
    if (size_ <= kept_bytes) kept_ = std::move(memory_), kept_size_ = size_;
  }
  char* get() const { return static_cast<char*>(memory_.get()); }

 private:
  Memory memory_;
  int64_t size_ = 0;
  static thread_local Memory kept_;
  static thread_local int64_t kept_size_;
};

thread_local Memory ScratchMemory::kept_;
thread_local int64_t ScratchMemory::kept_size_ = 0;

}  // namespace

void forward(const Problem& p, int max_threads) {
  Plan plan = make_plan(p, this_machine(max_threads));
  if (plan.tasks == 0) return;
  int64_t stride = (plan.scratch + 63) / 64 * 64;
  ScratchMemory scratch(stride * plan.threads);
  Memory workspace = plan.workspace ? allocate(plan.workspace) : nullptr;
  const Kernels& k = *plan.kernels;
  auto run = [&](int64_t tasks, auto kernel, auto... more) {
    parallel_for(tasks, plan.threads, [&](int64_t task, int worker) {
      kernel(p, plan, task, scratch.get() + worker * stride, more...);
    });
  };
  if (plan.algorithm != Algorithm::flash) return run(plan.tasks, k.materialised, workspace.get());
  if (!plan.decode) return run(plan.tasks, k.flash);
  if (plan.splits > 1) run(plan.tasks * plan.splits, k.decode_split, workspace.get());
  run(plan.tasks, k.decode, workspace.get());
}

void backward(const Problem& p, int max_threads) {
  BackwardPlan plan = make_backward_plan(p, this_machine(max_threads));
  auto aligned = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  int64_t stride = aligned(plan.scratch), key_stride = aligned(plan.key_scratch);
  ScratchMemory scratch(std::max(stride * plan.threads, key_stride * plan.key_threads));
  Memory workspace = allocate(plan.workspace);
  const Kernels& k = *plan.kernels;
  auto run = [&](int64_t tasks, BackwardTask* kernel, int threads, int64_t bytes) {
    parallel_for(tasks, threads, [&](int64_t task, int worker) {
      kernel(p, plan, task, scratch.get() + worker * bytes, workspace.get());
    });
  };
  run(plan.row_tasks, k.backward_rows, plan.threads, stride);
  run(plan.key_tasks, k.backward_keys, plan.key_threads, key_stride);
  run(plan.add_tasks, k.backward_add, plan.threads, stride);
  run(plan.bias_tasks, k.backward_bias, plan.threads, stride);
  run(plan.sink_tasks, k.backward_sinks, plan.threads, stride);
}

namespace {

int64_t count(const Array& x, int axes) {
  int64_t n = 1;
  for (int i = 0; i < axes; ++i) n *= x.shape[i];
  return n;
}

// Where row number i of x begins, counting over all axes but `skipped`, the last axis fastest.
char* row_of(const Array& x, int64_t i, int skipped) {
  int64_t offset = 0;
  for (int axis = x.ndim - 1; axis >= 0; --axis) {
    if (axis == skipped) continue;
    offset += i % x.shape[axis] * x.strides[axis];
    i /= x.shape[axis];
  }
  return static_cast<char*>(x.data) + offset * size_of(x.dtype);
}

// f(row) for all rows, enough of them at once to be worth a task.
template <class F> void for_rows(int64_t rows, int64_t length, int max_threads, F f) {
  int64_t together = std::max<int64_t>(1, 16384 / std::max<int64_t>(length, 1));
  int64_t tasks = (rows + together - 1) / together;
  int threads = this_machine(max_threads).threads;
  parallel_for(tasks, threads, [&](int64_t task, int) {
    int64_t end = std::min(rows, (task + 1) * together);
    for (int64_t row = task * together; row < end; ++row) f(row);
  });
}

}  // namespace

void softmax(const Array& x, const Array& out, int axis, Algorithm algorithm, int max_threads) {
  const Kernels& kernels = chosen_isa();
  int64_t n = x.shape[axis], all = count(x, x.ndim);
  if (all == 0) return;
  SoftmaxRow row{x.dtype, algorithm, n, x.strides[axis], out.strides[axis]};
  for_rows(all / n, n, max_threads,
           [&](int64_t i) { kernels.softmax(row, row_of(x, i, axis), row_of(out, i, axis)); });
}

OnlineSoftmax<double> absorb(OnlineSoftmax<double> state, const Array& x) {
  FloatMode mode;
  if (x.shape[0] == 0) return state;
  return chosen_isa().absorb(state, x.dtype, x.data, x.shape[0], x.strides[0]);
}

void merge_states(const Array& out_a, const Array& lse_a, const Array& out_b, const Array& lse_b,
                  const Array& out, const Array& lse, int max_threads) {
  const Kernels& kernels = chosen_isa();
  int axis = out.ndim - 1;
  int64_t n = out.shape[axis], rows = count(out, axis);
  if (rows == 0) return;
  auto stride = [&](const Array& x) { return n ? x.strides[axis] : 0; };
  MergeRow row{out.dtype, n, stride(out_a), stride(out_b), stride(out)};
  bool wide = lse.dtype == Dtype::float64;
  auto number = [&](const void* p) {
    return wide ? *static_cast<const double*>(p) : double(*static_cast<const float*>(p));
  };
  for_rows(rows, n, max_threads, [&](int64_t i) {
    // Rows of an empty array have no addresses.
    auto begin = [&](const Array& x) { return n ? row_of(x, i, axis) : nullptr; };
    double merged = kernels.merge(row, begin(out_a), number(row_of(lse_a, i, -1)), begin(out_b),
                                  number(row_of(lse_b, i, -1)), begin(out));
    void* to = row_of(lse, i, -1);
    wide ? void(*static_cast<double*>(to) = merged)
         : void(*static_cast<float*>(to) = float(merged));
  });
}

std::vector<KernelInfo> cpu_kernels() {
  std::vector<KernelInfo> list;
  for (const Kernels* k : compiled_isas()) {
    uint32_t missing = k->features & ~machine_features();
    list.push_back({"cpu", k->isa, "", "", missing == 0,
                    missing ? "this CPU lacks " + feature_names(missing) : "", k == &chosen_isa()});
  }
  return list;
}

std::vector<KernelInfo> kernels() {
  std::vector<KernelInfo> list = cpu_kernels();
  if (!built_with_cuda()) return list;
  const std::string why_not = why_no_cuda();
  for (const CudaKernel& k : cuda_kernels())
    list.push_back(
        {"cuda", k.architecture, k.name, name(k.dtype), why_not.empty(), why_not, false});
  return list;
}

double measure_peak(double seconds, Dtype dtype, int max_threads) {
  Machine machine = this_machine(max_threads);
  std::vector<double> rates(size_t(machine.threads), 0.0);
  parallel_for(machine.threads, machine.threads, [&](int64_t task, int) {
    timespec begin, now;
    double work = 0, spent = 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    while (spent < seconds) {
      work += machine.kernels->peak(dtype, 10000);
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
      spent = double(now.tv_sec - begin.tv_sec) + 1e-9 * double(now.tv_nsec - begin.tv_nsec);
    }
    rates[size_t(task)] = work / spent;
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

uint64_t read(const Array& x, int max_threads) {
  const Kernels& kernels = chosen_isa();
  constexpr int64_t piece = 1 << 20;
  Bytes bytes = bytes_of(x);
  int64_t size = int64_t(bytes.end - bytes.begin), tasks = (size + piece - 1) / piece;
  std::atomic<uint64_t> parity{0};
  parallel_for(tasks, this_machine(max_threads).threads, [&](int64_t task, int) {
    int64_t begin = task * piece;
    auto from = reinterpret_cast<const char*>(bytes.begin) + begin;
    parity ^= kernels.read(from, std::min(piece, size - begin));
  });
  return parity;
}

const char* version() { return FANANO_VERSION; }

}  // namespace fanano
