#include "calls.hpp"

#include <atomic>
#include <optional>

#include "arguments.hpp"
#include "cpu/kernels.hpp"
#include "cpu/openmp.hpp"
#include "cuda.hpp"
#include "errors.hpp"
#include "gil.hpp"

namespace fanano {
namespace {

// The options as the core's request wants them; holds what the request points to.
class Converted {
 public:
  // `of_query`: null where there are shapes alone.
  Converted(const Options& o, const Imported* of_query, Array query, Array key, Array value)
      : layout_(layout_named(word(o.layout, "layout"))), batch_(batch_of(query, layout_)),
        heads_(heads_of(query, layout_)), q_offset_(o.q_offset, "q_offset", batch_, of_query),
        q_lengths_(o.q_lengths, "q_lengths", batch_, of_query),
        kv_lengths_(o.kv_lengths, "kv_lengths", batch_, of_query),
        alibi_slopes_(o.alibi_slopes, "alibi_slopes", batch_, heads_, true, of_query),
        sinks_(o.sinks, "sinks", batch_, heads_, false, of_query) {
    if (!o.attn_mask.is_none()) {
      if (of_query) {
        mask_.emplace(o.attn_mask, "attn_mask", Imported::Access::read, of_query->beside());
        mask_->check_beside(*of_query);
      } else {
        mask_.emplace(o.attn_mask, "attn_mask");
      }
      mask_array_ = mask_->mask();
      request.attn_mask = &mask_array_;
    }
    request.window = window(o.window_size);
    if (!o.softcap.is_none()) request.softcap = number(o.softcap, "softcap");
    request.alibi_slopes = alibi_slopes_.reals();
    request.dropout = dropout_.emplace(o.dropout_p, o.seed, o.dropout_offset, of_query).dropout();
    request.has_seed = !o.seed.is_none();
    request.sinks = sinks_.reals();
    request.query = query, request.key = key, request.value = value;
    request.q_offset = q_offset_.integers();
    request.q_lengths = q_lengths_.integers();
    request.kv_lengths = kv_lengths_.integers();
    request.is_causal = flag(o.is_causal, "is_causal");
    request.layout = layout_;
    request.algorithm = algorithm_named(word(o.algorithm, "algorithm"), "algorithm");
    request.has_scale = !o.scale.is_none();
    if (request.has_scale) request.scale = number(o.scale, "scale");
    request.has_out_dtype = !o.out_dtype.is_none();
    if (request.has_out_dtype)
      request.out_dtype = dtype_named(word(o.out_dtype, "out_dtype"), "out_dtype");
  }

  Converted(const Converted&) = delete;

  Request request;

  DeviceOptions on_device() const {
    return {q_lengths_.on_device(),    kv_lengths_.on_device(), q_offset_.on_device(),
            alibi_slopes_.on_device(), sinks_.on_device(),      dropout_->seed_on_device()};
  }

 private:
  Layout layout_;
  int64_t batch_, heads_;
  Numbers q_offset_, q_lengths_, kv_lengths_;
  RealNumbers alibi_slopes_, sinks_;
  std::optional<DropoutNumbers> dropout_;
  std::optional<Imported> mask_;
  Array mask_array_;
};

// Memory on the device of `like`, made by the caller's library or for it to take over, and ours to
// fill. `empty` None: the library of `like` is asked without Python.
class Result {
 public:
  Result(nb::handle empty, const Imported& like, const char* argument, int ndim,
         const int64_t* shape, Dtype dtype) {
    Array wanted{nullptr, dtype, ndim, shape, nullptr};
    if (empty.is_none())
      imported_.emplace(like, argument, wanted);
    else  // for reading: who makes it for us, if without a flag that says so, lets us write
      imported_.emplace(made_by(empty, like, wanted), argument, Imported::Access::read,
                        Where{true, like.beside().stream});
    if (imported_->device() != like.device())
      refuse("made_elsewhere", argument, text_of(like.device()), text_of(imported_->device()));
    array = imported_->floats();
    bool right = array.dtype == dtype && array.ndim == ndim;
    for (int i = 0; right && i < ndim; ++i) right = array.shape[i] == shape[i];
    if (!right)
      refuse("made_otherwise", argument, shape_text(wanted), name(dtype), shape_text(array),
             name(array.dtype));
    check_writable(array, argument);
  }
  Result(nb::handle empty, const Imported& like, const char* argument, const Extents& e, Dtype d)
      : Result(empty, like, argument, e.ndim, e.size, d) {}

  nb::object object() const { return imported_->object(); }
  Array array;

 private:
  static nb::object made_by(nb::handle empty, const Imported& like, const Array& wanted) {
    nb::object shape = shape_tuple(wanted);
    if (!like.device().cuda) return empty(shape, name(wanted.dtype));
    return empty(shape, name(wanted.dtype), like.device().id,
                 reinterpret_cast<uintptr_t>(like.stream()));
  }
  static nb::object shape_tuple(const Array& a) {
    nb::object tuple = nb::steal(PyTuple_New(a.ndim));
    for (int i = 0; i < a.ndim; ++i)
      if (PyTuple_SetItem(tuple.ptr(), i, PyLong_FromLongLong(a.shape[i])))
        throw nb::python_error();
    return tuple;
  }

  std::optional<Imported> imported_;
};

void check_runs_on(const Imported& query) {
  static std::atomic<bool> known = false;  // that CUDA is there: asking takes a while
  if (!query.device().cuda || known) return;
  if (std::string why = why_no_cuda(); !why.empty()) refuse("no_cuda", why);
  known = true;
}

// Where the arrays' library has said how many threads it has, they help, if they can be borrowed.
template <class F> void compute(int max_threads, F f) {
  without_gil([&] {
    Borrowed borrowed(max_threads > 1 ? openmp() : nullptr);
    f();
  });
}

// A pass over a problem, on the CPU and on a device.
struct Pass {
  void (*run)(const Problem&, int max_threads);
  int64_t (*workspace)(const Problem&, const DeviceOptions&);
  void (*launch)(const Problem&, int device, void* stream, void* workspace, const DeviceOptions&);
};
constexpr Pass forward_pass{forward, device_workspace, forward_on_device};
constexpr Pass backward_pass{backward, backward_device_workspace, backward_on_device};

// Where the query is. On a device it returns at once, and memory that is given back then, such as
// the workspace, can be another's only after what the stream still has to do.
void run(const Pass& pass, const Problem& p, const DeviceOptions& on_device, const Imported& query,
         nb::handle empty, int max_threads) {
  if (!query.device().cuda) return compute(max_threads, [&] { pass.run(p, max_threads); });
  check_runs_on(query);
  constexpr int64_t alignment = 256, element = sizeof(double);
  std::optional<Result> made;
  char* workspace = nullptr;
  if (int64_t bytes = pass.workspace(p, on_device)) {
    Extents room{1, {(bytes + alignment) / element + 1}};
    made.emplace(empty, query, "workspace", room, Dtype::float64);
    workspace = static_cast<char*>(made->array.data);
    workspace += -reinterpret_cast<uintptr_t>(workspace) % alignment;
  }
  without_gil([&] { pass.launch(p, query.device().id, query.stream(), workspace, on_device); });
}

ExplainedPlan explain(const Request& request, nb::handle backward, nb::handle grad_mask,
                      int max_threads) {
  Description description(request);
  const Problem& p = description.problem();
  const Machine machine = this_machine(max_threads);
  bool of_mask = flag(grad_mask, "grad_mask");
  if (!flag(backward, "backward")) {
    Plan plan = make_plan(p, machine);
    return {false,        plan.kernels->isa, name(plan.algorithm), plan.heads,
            plan.rows,    plan.keys,         plan.tasks,           plan.threads,
            plan.scratch, plan.workspace,    to_string(plan, p)};
  }
  description.differentiate(of_mask);
  BackwardPlan plan = make_backward_plan(p, machine);
  return {true,
          plan.kernels->isa,
          name(Algorithm::flash),
          1,
          plan.rows,
          plan.keys,
          plan.key_tasks,
          plan.threads,
          plan.scratch_bytes(),
          plan.workspace,
          to_string(plan, p)};
}

}  // namespace

nb::object attention(nb::handle query, nb::handle key, nb::handle value, nb::handle out,
                     nb::handle empty, nb::handle return_lse, const Options& options,
                     int max_threads, nb::handle stream) {
  constexpr auto read = Imported::Access::read, write = Imported::Access::write;
  Imported q(query, "query", read, {.cuda = true, .stream = stream_of(stream)});
  Imported k(key, "key", read, q.beside()), v(value, "value", read, q.beside());
  k.check_beside(q), v.check_beside(q);
  Converted converted(options, &q, q.floats(), k.floats(), v.floats());
  bool with_lse = flag(return_lse, "return_lse");
  const Request& request = converted.request;
  Description description(request);

  std::optional<Imported> given;
  std::optional<Result> made, lse;
  Dtype dtype = request.has_out_dtype ? request.out_dtype : request.query.dtype;
  if (!out.is_none()) given.emplace(out, "out", write, q.beside()).check_beside(q);
  if (!given) {
    check_runs_on(q);
    made.emplace(empty, q, "out", description.out_shape(), dtype);
  }
  if (with_lse)
    lse.emplace(empty, q, "lse", description.lse_shape(), accumulator(request.query.dtype));
  description.write_to(given ? given->floats() : made->array, lse ? &lse->array : nullptr);
  run(forward_pass, description.problem(), converted.on_device(), q, empty, max_threads);
  nb::object result = given ? nb::borrow(out) : made->object();
  return lse ? nb::make_tuple(result, lse->object()) : result;
}

Five attention_backward(nb::handle dout, nb::handle query, nb::handle key, nb::handle value,
                        nb::handle out, nb::handle lse, nb::handle dlse, nb::handle empty,
                        nb::handle grad_mask, const Options& options, int max_threads,
                        nb::handle stream) {
  constexpr auto reading = Imported::Access::read;
  Imported q(query, "query", reading, {.cuda = true, .stream = stream_of(stream)});
  auto beside_q = [&](nb::handle x, const char* argument) {
    return Imported(x, argument, reading, q.beside());
  };
  Imported k = beside_q(key, "key"), v = beside_q(value, "value");
  k.check_beside(q), v.check_beside(q);
  Converted converted(options, &q, q.floats(), k.floats(), v.floats());
  const Request& request = converted.request;
  Description description(request);

  Imported d = beside_q(dout, "dout"), o = beside_q(out, "out"), l = beside_q(lse, "lse");
  for (const Imported* x : {&d, &o, &l}) x->check_beside(q);
  std::optional<Imported> dl;
  Array of_lse;
  Upstream upstream{d.floats(), o.floats(), l.floats(), nullptr, flag(grad_mask, "grad_mask")};
  if (!dlse.is_none()) {
    dl.emplace(dlse, "dlse", reading, q.beside()).check_beside(q);
    upstream.dlse = &(of_lse = dl->floats());
  }
  description.read(upstream);
  check_runs_on(q);

  std::optional<Result> dbias, dsinks;
  auto like = [&](const char* argument, const Array& a) {
    return Result(empty, q, argument, a.ndim, a.shape, a.dtype);
  };
  Result dq = like("dq", request.query), dk = like("dk", request.key);
  Result dv = like("dv", request.value);
  if (upstream.grad_mask)
    dbias.emplace(empty, q, "dbias", request.attn_mask->ndim, request.attn_mask->shape,
                  request.attn_mask->dtype);
  if (request.sinks.data)
    dsinks.emplace(empty, q, "dsinks", Extents{1, {description.problem().shape.heads}},
                   accumulator(request.query.dtype));
  description.write_to({&dq.array, &dk.array, &dv.array, dbias ? &dbias->array : nullptr,
                        dsinks ? &dsinks->array : nullptr});
  run(backward_pass, description.problem(), converted.on_device(), q, empty, max_threads);
  return nb::borrow<Five>(nb::make_tuple(dq.object(), dk.object(), dv.object(),
                                         dbias ? dbias->object() : nb::none(),
                                         dsinks ? dsinks->object() : nb::none()));
}

ExplainedPlan explain(nb::handle query, nb::handle key, nb::handle value, const Options& options,
                      nb::handle backward, nb::handle grad_mask, int max_threads) {
  Imported q(query, "query"), k(key, "key"), v(value, "value");
  Converted converted(options, &q, q.floats(), k.floats(), v.floats());
  return explain(converted.request, backward, grad_mask, max_threads);
}

ExplainedPlan explain_shapes(nb::handle query, nb::handle key, nb::handle value, nb::handle dtype,
                             const Options& options, nb::handle backward, nb::handle grad_mask,
                             int max_threads) {
  // No memory is looked at, so every element may stand at the same place.
  struct Shaped {
    Shaped(nb::handle shape, const char* argument) : sizes(extents(shape, argument)) {
      strides.assign(sizes.size(), 0);
    }
    Array array(Dtype d) const {
      return {nullptr, d, int(sizes.size()), sizes.data(), strides.data()};
    }
    std::vector<int64_t> sizes, strides;
  } q(query, "query"), k(key, "key"), v(value, "value");
  Dtype d = dtype_named(word(dtype, "dtype"), "dtype");
  Converted converted(options, nullptr, q.array(d), k.array(d), v.array(d));
  return explain(converted.request, backward, grad_mask, max_threads);
}

nb::object softmax(nb::handle x, nb::handle axis, nb::handle algorithm, nb::handle empty,
                   int max_threads) {
  Imported imported(x, "x");
  Array in = imported.floats();
  Algorithm how = softmax_algorithm_named(word(algorithm, "algorithm"));
  int which = softmax_axis(in, integer(axis, "axis"));
  Result out(empty, imported, "out", in.ndim, in.shape, in.dtype);
  check_apart(out.array, "out", in, "x");
  compute(max_threads, [&] { softmax(in, out.array, which, how, max_threads); });
  return out.object();
}

uint64_t read(nb::handle x) {
  Imported imported(x, "x");
  Array array = imported.floats();
  check_memory(array, "x");
  uint64_t parity = 0;
  without_gil([&] { parity = read(array); });
  return parity;
}

OnlineSoftmax<double> absorb(OnlineSoftmax<double> state, nb::handle scores) {
  Imported imported(scores, "scores");
  Array x = imported.floats();
  check_scores(x);
  without_gil([&] { state = absorb(state, x); });
  return state;
}

Pair merge_states(nb::handle out_a, nb::handle lse_a, nb::handle out_b, nb::handle lse_b,
                  nb::handle empty, int max_threads) {
  Imported imported[] = {{out_a, "out_a"}, {lse_a, "lse_a"}, {out_b, "out_b"}, {lse_b, "lse_b"}};
  Array a = imported[0].floats(), la = imported[1].floats();
  Array b = imported[2].floats(), lb = imported[3].floats();
  check_merge(a, la, b, lb);
  Result out(empty, imported[0], "out", a.ndim, a.shape, a.dtype);
  Result lse(empty, imported[0], "lse", la.ndim, la.shape, la.dtype);
  compute(max_threads, [&] { merge_states(a, la, b, lb, out.array, lse.array, max_threads); });
  return nb::borrow<Pair>(nb::make_tuple(out.object(), lse.object()));
}

}  // namespace fanano
