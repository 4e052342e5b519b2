// fanano._core: a table of contents. What the functions do is in calls.cpp; the public names, with
// their defaults and documentation, are Python's (src/fanano).
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <utility>

#include "arguments.hpp"
#include "buffer.hpp"
#include "calls.hpp"
#include "cpu/kernels.hpp"
#include "cpu/openmp.hpp"
#include "cpu/parallel.hpp"
#include "cuda.hpp"
#include "errors.hpp"
#include "float_mode.hpp"
#include "gil.hpp"
#include "xla.hpp"

namespace {

using namespace fanano;
using nb::arg, nb::handle;

// One translator for both, so that a core error is the Python error of the same name.
void translate(const std::exception_ptr& error, void*) {
  try {
    std::rethrow_exception(error);
  } catch (const TypeError& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  } catch (const ValueError& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const NotImplementedError& e) {
    PyErr_SetString(PyExc_NotImplementedError, e.what());
  } catch (const RuntimeError& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

// The table of refusals, for the tests: (id, name of the Python error, words).
std::vector<std::tuple<std::string, std::string, std::string>> refusal_rows() {
  constexpr const char* names[] = {"TypeError", "ValueError", "NotImplementedError",
                                   "RuntimeError"};
  std::vector<std::tuple<std::string, std::string, std::string>> rows;
  for (const Refusal& row : refusals) rows.emplace_back(row.id, names[int(row.error)], row.text);
  return rows;
}

nb::typed<nb::dict, nb::str, nb::object> build_info() {
  nb::typed<nb::dict, nb::str, nb::object> info;
  info["version"] = version();
  info["cuda"] = built_with_cuda();
  info["compiler"] = __VERSION__;
  nb::list isas;
  for (const KernelInfo& k : cpu_kernels()) isas.append(k.isa);
  info["isas"] = nb::tuple(isas);
  nb::list machines, cuda;
  for (const std::string& machine : cuda_machine_code()) machines.append(machine);
  info["cuda_machine_code"] = nb::tuple(machines);
  for (const CudaKernel& k : cuda_kernels())
    cuda.append(nb::make_tuple(k.name, name(k.dtype), k.architecture));
  info["cuda_kernels"] = nb::tuple(cuda);
  return info;
}

// For jax.ffi.register_ffi_target: (target's name, platform, handler as XLA wants it wrapped).
using XlaHandlers = nb::typed<nb::list, nb::typed<nb::tuple, nb::str, nb::str, nb::object>>;
XlaHandlers xla_handlers() {
  struct {
    const char *target, *platform;
    void* handler;
  } rows[] = {{"fanano_attention", "cpu", xla_attention()},
              {"fanano_attention_backward", "cpu", xla_attention_backward()},
              {"fanano_attention", "CUDA", xla_attention_cuda()},
              {"fanano_attention_backward", "CUDA", xla_attention_backward_cuda()}};
  XlaHandlers handlers;
  for (auto [target, platform, handler] : rows)
    if (handler)
      handlers.append(
          nb::make_tuple(target, platform, nb::capsule(handler, "xla._CUSTOM_CALL_TARGET")));
  return handlers;
}

std::string describe(const KernelInfo& k) {
  std::string text = "<Kernel " + k.device + "/" + k.isa;
  if (!k.name.empty()) text += " " + k.name + " " + k.dtype;
  if (k.chosen) return text + ", chosen>";
  return text + (k.runnable ? ", runnable>" : ": " + k.why_not + ">");
}

void define_classes(nb::module_& m) {
  using State = OnlineSoftmax<double>;
  nb::class_<ExplainedPlan>(m, "Plan", "How an attention call would be carried out.")
      .def_prop_ro(
          "device", [](const ExplainedPlan&) { return "cpu"; }, nb::sig("def device(self) -> str"),
          "Where it would run.")
      .def_ro("backward", &ExplainedPlan::backward, "Of attention_backward, or of attention.")
      .def_ro("isa", &ExplainedPlan::isa, nb::sig("def isa(self) -> str"),
              "The instruction set of its kernels.")
      .def_ro("algorithm", &ExplainedPlan::algorithm, nb::sig("def algorithm(self) -> str"),
              "naive, safe, online or flash.")
      .def_prop_ro(
          "tile", [](const ExplainedPlan& p) { return nb::make_tuple(p.rows, p.keys); },
          nb::sig("def tile(self) -> tuple[int, int]"),
          "Query rows of one task, of each of its heads (backward: that pass the keys together), "
          "and keys of one tile.")
      .def_ro("heads", &ExplainedPlan::heads,
              "Query heads of one task: they share a key head, and pass its keys together.")
      .def_ro("tasks", &ExplainedPlan::tasks,
              "Independent blocks of query rows, or teams of heads that share a key head (decode). "
              "Backward: key heads, or the sums of each.")
      .def_ro("threads", &ExplainedPlan::threads, "Threads that would take part.")
      .def_ro("scratch_bytes", &ExplainedPlan::scratch, "Memory of each thread.")
      .def_ro("workspace_bytes", &ExplainedPlan::workspace,
              "Memory shared by all threads: materialised scores, or states of split keys, else 0. "
              "Backward: three numbers of each row, and sums of dk and dv.")
      .def("__str__", [](const ExplainedPlan& p) { return p.text; })
      .def("__repr__", [](const ExplainedPlan& p) { return "<Plan: " + p.text + ">"; });

  nb::class_<KernelInfo>(m, "Kernel", "One row of the table of kernels in this build.")
      .def_ro("device", &KernelInfo::device, "cpu or cuda.")
      .def_ro("isa", &KernelInfo::isa,
              "The instruction set; of CUDA, the least architecture: sm_80 and what is newer.")
      .def_ro("name", &KernelInfo::name,
              "Which of that device's kernels; empty on the CPU, where an instruction set has all.")
      .def_ro("dtype", &KernelInfo::dtype, "Of its inputs; empty on the CPU.")
      .def_ro("runnable", &KernelInfo::runnable, "Whether this machine has it.")
      .def_ro("why_not", &KernelInfo::why_not, "What is missing; empty when runnable.")
      .def_ro("chosen", &KernelInfo::chosen, "Whether calls with arrays on the CPU use it.")
      .def("__repr__", describe);

  nb::class_<State>(m, "State", "The state (m, l) of an online softmax, a value.")
      .def(nb::init<>())
      .def(
          "__init__", [](State* self, double m, double l) { new (self) State{m, l}; }, arg("m"),
          arg("l"))
      .def(
          "absorb", [](const State& s, handle scores) { return absorb(s, scores); },
          arg("scores").none())
      .def(
          "merge",
          [](const State& a, const State& b) {
            return in_float_mode(std::pair(a, b), [](auto& p) { return merge(p.first, p.second); });
          },
          arg("other"))
      .def_prop_ro("m", [](State s) { return s.m; })
      .def_prop_ro("l", [](State s) { return s.l; })
      .def_prop_ro(
          "lse", [](State s) { return in_float_mode(s, [](const State& x) { return x.lse(); }); });

  nb::class_<Buffer>(m, "Buffer", "Memory that a library takes over through DLPack.")
      .def(
          "__init__",
          [](Buffer* self, handle shape, handle dtype) {
            new (self) Buffer(extents(shape, "shape"), dtype_named(word(dtype, "dtype"), "dtype"));
          },
          arg("shape"), arg("dtype").none())
      .def(
          "__init__",
          [](Buffer* self, handle shape, handle dtype, int device, handle stream) {
            new (self) Buffer(extents(shape, "shape"), dtype_named(word(dtype, "dtype"), "dtype"),
                              {true, device}, stream_of(stream));
          },
          arg("shape"), arg("dtype").none(), arg("device"), arg("stream").none())
      .def("__dlpack_device__", [](const Buffer& b) { return b.dlpack_device(); })
      .def(
          "__dlpack__",
          [](const Buffer& b, handle stream, handle max_version, handle, handle) {
            return b.lend(max_version, stream);
          },
          nb::kw_only(), arg("stream") = nb::none(), arg("max_version") = nb::none(),
          arg("dl_device") = nb::none(), arg("copy") = nb::none(),
          "A capsule. The memory is lent where it is, and never copied.");
}

}  // namespace

// threadpoolctl finds a library by its symbols (src/fanano/threadpoolctl.py): this one is fanano's.
extern "C" NB_EXPORT void fanano_thread_pool() {}

NB_MODULE(_core, m) {
  m.doc() = "The compiled part of fanano. Private: use the names of the package fanano.";
  nb::register_exception_translator(translate);
  nb::set_leak_warnings(false);  // a library prints nothing, whatever lives until the end
  define_classes(m);

  m.def(
      "attention",
      [](handle query, handle key, handle value, handle out, handle empty, handle return_lse,
         handle attn_mask, handle is_causal, handle window_size, handle q_offset, handle scale,
         handle softcap, handle alibi_slopes, handle sinks, handle dropout_p, handle seed,
         handle dropout_offset, handle q_lengths, handle kv_lengths, handle layout,
         handle algorithm, handle out_dtype, int max_threads, handle stream) {
        return attention(query, key, value, out, empty, return_lse,
                         {attn_mask, is_causal, window_size, q_offset, scale, softcap, alibi_slopes,
                          sinks, dropout_p, seed, dropout_offset, q_lengths, kv_lengths, layout,
                          algorithm, out_dtype},
                         max_threads, stream);
      },
      arg("query"), arg("key"), arg("value"), arg("out").none(), arg("empty").none(),
      arg("return_lse").none(), arg("attn_mask").none(), arg("is_causal").none(),
      arg("window_size").none(), arg("q_offset").none(), arg("scale").none(), arg("softcap").none(),
      arg("alibi_slopes").none(), arg("sinks").none(), arg("dropout_p").none(), arg("seed").none(),
      arg("dropout_offset").none(), arg("q_lengths").none(), arg("kv_lengths").none(),
      arg("layout").none(), arg("algorithm").none(), arg("out_dtype").none(), arg("max_threads"),
      arg("stream") = nb::none());
  m.def(
      "attention_backward",
      [](handle dout, handle query, handle key, handle value, handle out, handle lse, handle dlse,
         handle empty, handle grad_mask, handle attn_mask, handle is_causal, handle window_size,
         handle q_offset, handle scale, handle softcap, handle alibi_slopes, handle sinks,
         handle dropout_p, handle seed, handle dropout_offset, handle q_lengths, handle kv_lengths,
         handle layout, int max_threads, handle stream) {
        return attention_backward(dout, query, key, value, out, lse, dlse, empty, grad_mask,
                                  {attn_mask, is_causal, window_size, q_offset, scale, softcap,
                                   alibi_slopes, sinks, dropout_p, seed, dropout_offset, q_lengths,
                                   kv_lengths, layout, nb::str("flash"), nb::none()},
                                  max_threads, stream);
      },
      arg("dout"), arg("query"), arg("key"), arg("value"), arg("out"), arg("lse"),
      arg("dlse").none(), arg("empty").none(), arg("grad_mask").none(), arg("attn_mask").none(),
      arg("is_causal").none(), arg("window_size").none(), arg("q_offset").none(),
      arg("scale").none(), arg("softcap").none(), arg("alibi_slopes").none(), arg("sinks").none(),
      arg("dropout_p").none(), arg("seed").none(), arg("dropout_offset").none(),
      arg("q_lengths").none(), arg("kv_lengths").none(), arg("layout").none(), arg("max_threads"),
      arg("stream") = nb::none());
  m.def(
      "explain",
      [](handle query, handle key, handle value, handle attn_mask, handle is_causal,
         handle window_size, handle q_offset, handle scale, handle softcap, handle alibi_slopes,
         handle sinks, handle dropout_p, handle seed, handle dropout_offset, handle q_lengths,
         handle kv_lengths, handle layout, handle algorithm, handle out_dtype, handle backward,
         handle grad_mask, int max_threads) {
        return explain(query, key, value,
                       {attn_mask, is_causal, window_size, q_offset, scale, softcap, alibi_slopes,
                        sinks, dropout_p, seed, dropout_offset, q_lengths, kv_lengths, layout,
                        algorithm, out_dtype},
                       backward, grad_mask, max_threads);
      },
      arg("query"), arg("key"), arg("value"), arg("attn_mask").none(), arg("is_causal").none(),
      arg("window_size").none(), arg("q_offset").none(), arg("scale").none(), arg("softcap").none(),
      arg("alibi_slopes").none(), arg("sinks").none(), arg("dropout_p").none(), arg("seed").none(),
      arg("dropout_offset").none(), arg("q_lengths").none(), arg("kv_lengths").none(),
      arg("layout").none(), arg("algorithm").none(), arg("out_dtype").none(),
      arg("backward").none(), arg("grad_mask").none(), arg("max_threads"));
  m.def(
      "explain_shapes",
      [](handle query, handle key, handle value, handle dtype, handle attn_mask, handle is_causal,
         handle window_size, handle q_offset, handle scale, handle softcap, handle alibi_slopes,
         handle sinks, handle dropout_p, handle seed, handle dropout_offset, handle q_lengths,
         handle kv_lengths, handle layout, handle algorithm, handle out_dtype, handle backward,
         handle grad_mask, int max_threads) {
        return explain_shapes(query, key, value, dtype,
                              {attn_mask, is_causal, window_size, q_offset, scale, softcap,
                               alibi_slopes, sinks, dropout_p, seed, dropout_offset, q_lengths,
                               kv_lengths, layout, algorithm, out_dtype},
                              backward, grad_mask, max_threads);
      },
      arg("query"), arg("key"), arg("value"), arg("dtype").none(), nb::kw_only(),
      arg("attn_mask") = nb::none(), arg("is_causal").none() = false,
      arg("window_size") = nb::none(), arg("q_offset") = nb::none(), arg("scale") = nb::none(),
      arg("softcap") = nb::none(), arg("alibi_slopes") = nb::none(), arg("sinks") = nb::none(),
      arg("dropout_p").none() = 0.0, arg("seed") = nb::none(),
      arg("dropout_offset") = nb::make_tuple(0, 0, 0, 0), arg("q_lengths") = nb::none(),
      arg("kv_lengths") = nb::none(), arg("layout").none() = "bhsd",
      arg("algorithm").none() = "flash", arg("out_dtype") = nb::none(),
      arg("backward").none() = false, arg("grad_mask").none() = false, arg("max_threads") = 0,
      "The plan for shapes alone: nothing is allocated.");

  m.def("softmax", nb::overload_cast<handle, handle, handle, handle, int>(&softmax),
        arg("x").none(), arg("axis").none(), arg("algorithm").none(), arg("empty").none(),
        arg("max_threads"));
  m.def("merge_states",
        nb::overload_cast<handle, handle, handle, handle, handle, int>(&merge_states), arg("out_a"),
        arg("lse_a"), arg("out_b"), arg("lse_b"), arg("empty").none(), arg("max_threads"));

  m.attr("most_threads") = most_threads;
  m.def("version", &version);
  m.def("borrow_openmp", &borrow_openmp, arg("library"),
        "From now on calls that are told of max_threads, more than 1, are helped by the OpenMP\n"
        "threads of this shared library, which must be loaded. Returns whether they were found.");
  m.def("refusals", &refusal_rows,
        "Every error of the core: (id, name of the exception, words with blanks in braces).");
  m.def(
      "measure_peak",
      [](double seconds, const std::string& dtype) {
        Dtype of = dtype_named(dtype, "dtype");
        double rate = 0;
        without_gil([&] { rate = measure_peak(seconds, of); });
        return rate;
      },
      arg("seconds"), arg("dtype") = "float32",
      "Floating-point operations a second of multiply-adds in registers, all threads, as prefill\n"
      "makes them for inputs of that dtype.");
  m.def("read", nb::overload_cast<handle>(&read), arg("x"),
        "Loads the bytes of an array once, all threads together, and returns their parity: timed, "
        "it\n"
        "is the bandwidth that memory can be read with.");
  m.def("xla_version", &xla_version,
        "The version of XLA's foreign function interface that the handlers speak: (major, minor).\n"
        "(0, 0): this build has none.");
  m.def("xla_handlers", &xla_handlers,
        "The handlers of compiled JAX: (target, platform, handler).");
  m.def(
      "kernels", &kernels,
      "Every kernel of this build, best first, and whether this machine can run it.\n\n"
      "Returns a list of objects with device, isa, name, dtype, runnable, why_not and chosen: "
      "those\n"
      "of the CPU, then those of CUDA, which is looked for at every call. Where there is a driver\n"
      "that starts CUDA, and children that are forked afterwards cannot use it. The environment\n"
      "variable FANANO_ISA names the instruction set to use instead of the best; ValueError if\n"
      "this build or this machine has no such.");
  m.def(
      "build_info", &build_info,
      "What this build is.\n\n"
      "Returns a dictionary of version, cuda (whether it has CUDA kernels), compiler, isas\n"
      "(the instruction sets compiled, best first), cuda_machine_code (the GPU architectures that\n"
      "need no compiling by the driver) and cuda_kernels (name, dtype and architecture of each).\n"
      "No device is looked for.");
  m.def(
      "get_num_threads", &get_num_threads,
      "How many threads a call uses at most.\n\n"
      "At first the environment variable FANANO_NUM_THREADS, else the CPUs that this process may\n"
      "use. Calls with torch tensors are helped by torch's threads: by the smaller of this\n"
      "number and torch.get_num_threads().");
  m.def(
      "set_num_threads", [](handle threads) { set_num_threads(integer(threads, "threads")); },
      arg("threads").none(), nb::sig("def set_num_threads(threads: int) -> None"),
      "Sets how many threads a call uses at most, in the whole process.\n\n"
      "Raises TypeError or ValueError unless threads is an integer from 1 to 4096. Results do not\n"
      "depend on it.");
}
