#include "tensors.hpp"

#include "arguments.hpp"
#include "dlpack.hpp"
#include "errors.hpp"

namespace fanano {
namespace {

using dlpack::DLTensor, dlpack::ExchangeApi, dlpack::ManagedTensor, dlpack::ManagedTensorVersioned;

const ExchangeApi* exchange_api(nb::handle type) {
  const char* name = "dlpack_exchange_api";
  nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), name)) return nullptr;
  auto* api = static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), name));
  while (api && api->version.major > 1) api = api->older;
  return api && api->version.major == 1 ? api : nullptr;
}

bool is_numpy(nb::handle type) {
  nb::object numpy = nb::steal(PyImport_GetModule(nb::str("numpy").ptr()));
  if (!numpy.is_valid()) return PyErr_Clear(), false;
  nb::object ndarray =
      nb::getattr(numpy, "ndarray", nb::none());  // none while it is being imported
  return PyType_Check(ndarray.ptr()) &&
         PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type.ptr()),
                          reinterpret_cast<PyTypeObject*>(ndarray.ptr()));
}

// A name that Python looks up without making a string of it each time.
PyObject* interned(const char* name) {
  PyObject* string = PyUnicode_InternFromString(name);
  if (!string) throw nb::python_error();
  return string;
}

// How arrays of a type are read.
struct Route {
  enum Kind { none, numpy, exchange, capsule } kind = none;
  const ExchangeApi* api = nullptr;
};

Route find_route(nb::handle type) {
  if (is_numpy(type)) return {Route::numpy, nullptr};
  if (const ExchangeApi* api = exchange_api(type)) return {Route::exchange, api};
  return {nb::hasattr(type, "__dlpack__") ? Route::capsule : Route::none, nullptr};
}

// The last few answers of find_route. Each keeps its type, whose address must not be used again.
Route route_of(nb::handle source) {
  static struct {
    PyObject* type;
    Route route;
  } known[4] = {};
  static int oldest = 0;
  nb::handle type = source.type();
  for (const auto& k : known)
    if (k.type == type.ptr()) return k.route;
  Route route = find_route(type);
  if (route.kind == Route::none) return route;
  PyObject* replaced = known[oldest].type;
  known[oldest] = {type.inc_ref().ptr(), route};
  oldest = (oldest + 1) % 4;
  Py_XDECREF(replaced);
  return route;
}

// NumPy has no bfloat16: arrays of ml_dtypes' are bytes to its protocol, told apart by their dtype.
bool is_bfloat16(nb::handle numpy_array) {
  static PyObject* known = nullptr;  // the dtype object; there is one
  nb::object dtype = numpy_array.attr("dtype");
  if (dtype.ptr() == known) return true;
  if (!nb::str("bfloat16").equal(dtype.attr("name"))) return false;
  PyObject* replaced = known;
  known = dtype.release().ptr();
  Py_XDECREF(replaced);
  return true;
}

uint8_t code_of(char kind) {
  switch (kind) {
    case 'f': return dlpack::float_;
    case 'i': return dlpack::int_;
    case 'u': return dlpack::uint_;
    case 'b': return dlpack::bool_;
    case 'c': return dlpack::complex;
    default: return dlpack::opaque;
  }
}

const char* device_name(int32_t type) {
  constexpr const char* names[] = {"unknown", "CPU",         "CUDA",      "pinned CUDA",  "OpenCL",
                                   "unknown", "unknown",     "Vulkan",    "Metal",        "VPI",
                                   "ROCm",    "pinned ROCm", "extension", "managed CUDA", "oneAPI",
                                   "WebGPU",  "Hexagon",     "MAIA",      "Trainium"};
  return names[type >= 0 && type < int32_t(std::size(names)) ? type : 0];
}

constexpr const char* exchange = "its library's DLPack exchange";

// " of dtype int4", which DLPack may be unable to say.
std::string of_dtype(nb::handle source) {
  nb::object dtype;
  if (source.is_valid()) dtype = nb::getattr(source, "dtype", nb::none());
  return !dtype.is_valid() || dtype.is_none() ? "" : " of dtype " + text_of(dtype);
}

// Some libraries append a stack trace.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// Turns the error of a library into ours, the library's as its cause. Interrupts pass unchanged.
[[noreturn]] void refuse_because(nb::python_error& e, const std::string& array, const char* call) {
  if (!e.matches(PyExc_Exception)) throw;
  std::string cause = first_line(text_of(e.value()));
  std::string words = refusal("unreadable_because", array, call, cause);
  nb::raise_from(e, PyExc_TypeError, "%s", words.c_str());
}

// Calls into the library of `source`, which may be null: an array that is not made yet.
template <class Call>
void ask(const char* argument, nb::handle source, const char* name, Call call) {
  try {
    if (call() == 0) return;
    if (PyErr_Occurred()) throw nb::python_error();
  } catch (nb::python_error& e) {
    refuse_because(e, argument + of_dtype(source), name);
  }
  refuse("unreadable", argument + of_dtype(source), name);
}

}  // namespace

std::string text_of(Device d) {
  return d.cuda ? std::string(device_name(dlpack::cuda)) + ":" + std::to_string(d.id) : "CPU";
}

void* stream_of(nb::handle number) {
  if (number.is_none()) return nullptr;
  const int64_t stream = integer(number, "stream");
  if (stream == 0) refuse("stream");  // DLPack: it may mean the one or the other default stream
  return reinterpret_cast<void*>(stream);
}

Loan::~Loan() {
  auto give_back = [](auto* managed) {
    if (managed->deleter) managed->deleter(managed);
  };
  if (!managed_) return;
  if (versioned_)
    give_back(static_cast<ManagedTensorVersioned*>(managed_));
  else
    give_back(static_cast<ManagedTensor*>(managed_));
}

Imported::Imported(nb::handle source, const char* argument, Access access, Where where)
    : source_(nb::borrow(source)), argument_(argument), cuda_allowed_(where.cuda) {
  Route route = route_of(source);
  switch (route.kind) {
    case Route::numpy: from_numpy(); break;
    case Route::exchange:
      api_ = route.api;
      from_exchange(access);
      check_device(where);
      if (device_.cuda) work_on(where.stream);
      break;
    case Route::capsule: from_capsule(access, where); break;
    case Route::none: refuse("array", argument, nb::type_name(source.type()).c_str());
  }
}

void Imported::from_numpy() {
  static PyObject* const name = interned("__array_struct__");
  nb::object capsule = nb::steal(PyObject_GetAttr(source_.ptr(), name));
  if (!capsule.is_valid()) throw nb::python_error();
  auto* a =
      static_cast<const array_struct::Interface*>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
  if (!a) throw nb::python_error();
  set_rank(a->ndim);
  code_ = code_of(a->kind), bits_ = 8 * a->item_size;
  if (a->kind == 'V' && a->item_size == 2 && is_bfloat16(source_)) code_ = dlpack::bfloat;
  if (!(a->flags & array_struct::native_bytes)) refuse("byte_order", argument_, dtype_text());
  data_ = a->data, writable_ = a->flags & array_struct::writable;
  for (int i = 0; i < ndim_; ++i) shape_[i] = a->shape[i];
  if (empty()) return;
  for (int i = 0; i < ndim_; ++i) {
    if (a->item_size == 0 || (shape_[i] > 1 && a->strides[i] % a->item_size))
      refuse("part_steps", argument_, a->strides[i]);
    strides_[i] = a->strides[i] / a->item_size;
  }
}

void Imported::from_exchange(Access access) {
  // Without a loan the flags are unknown, so it is enough for reading alone.
  if (api_->tensor_from_object && access == Access::read) {
    DLTensor tensor;
    ask(argument_, source_, exchange,
        [&] { return api_->tensor_from_object(source_.ptr(), &tensor); });
    return describe(&tensor);
  }
  ManagedTensorVersioned* managed = nullptr;
  ask(argument_, source_, exchange,
      [&] { return api_->managed_from_object(source_.ptr(), &managed); });
  hold_versioned(managed);
}

Imported::Imported(const Imported& like, const char* argument, const Array& wanted)
    : argument_(argument), api_(like.api_), cuda_allowed_(true), stream_(like.stream_) {
  if (!api_) refuse("no_exchange", like.argument_);
  DLTensor prototype{nullptr,
                     like.device_.cuda ? dlpack::cuda : dlpack::cpu,
                     like.device_.id,
                     wanted.ndim,
                     dlpack::type_of(wanted.dtype),
                     const_cast<int64_t*>(wanted.shape),
                     nullptr,
                     0};
  ManagedTensorVersioned* managed = nullptr;
  std::string error;
  auto set_error = [](void* context, const char*, const char* message) {
    *static_cast<std::string*>(context) = message;
  };
  if (api_->allocate(&prototype, &managed, &error, set_error) != 0 || !managed)
    refuse("not_made", argument, shape_text(wanted), first_line(error));
  describe(&managed->tensor);
  void* made = nullptr;  // takes managed over, whether it succeeds or not
  ask(argument, {}, exchange, [&] { return api_->managed_to_object(managed, &made); });
  source_ = nb::steal(static_cast<PyObject*>(made));
}

// The exchange synchronises nothing: what it lends is right for work on the library's own stream.
void Imported::work_on(void* stream) {
  if (!api_->current_stream) refuse("unreadable", argument_, exchange);
  ask(argument_, source_, exchange,
      [&] { return api_->current_stream(dlpack::cuda, device_.id, &stream_); });
  if (!stream_) stream_ = legacy_stream;
  if (stream && stream != stream_) refuse("other_stream", argument_, "query");
}

void Imported::from_capsule(Access access, Where where) {
  nb::object device, capsule;
  ask(argument_, source_, "__dlpack_device__()", [&] {
    device = source_.attr("__dlpack_device__")();
    return 0;
  });
  int32_t type, id;
  PyObject* d = device.ptr();
  if (!PyTuple_Check(d) || PyTuple_Size(d) != 2 || !read_int32(PyTuple_GetItem(d, 0), &type) ||
      !read_int32(PyTuple_GetItem(d, 1), &id))
    refuse("device_pair", argument_, text_of(device));
  set_device(type, id);
  check_device(where);
  const Device said = device_;
  nb::dict options;
  cuda_allowed_ = device_.cuda;  // for what is lent as well
  if (device_.cuda) {            // whose library lets this stream wait for its own
    stream_ = where.stream ? where.stream : legacy_stream;
    options["stream"] = reinterpret_cast<uintptr_t>(stream_);
  }
  ask(argument_, source_, "__dlpack__()", [&] {
    nb::object method = source_.attr("__dlpack__");
    try {
      capsule = method(nb::arg("max_version") = nb::make_tuple(1, 3), **options);
    } catch (nb::python_error& e) {  // a producer from before DLPack 1.0
      if (!e.matches(PyExc_TypeError)) throw;
      capsule = method(**options);
    }
    return 0;
  });
  PyObject* c = capsule.ptr();
  if (PyCapsule_IsValid(c, "dltensor_versioned")) {
    auto* managed =
        static_cast<ManagedTensorVersioned*>(PyCapsule_GetPointer(c, "dltensor_versioned"));
    PyCapsule_SetName(c, "used_dltensor_versioned");
    hold_versioned(managed);
  } else if (PyCapsule_IsValid(c, "dltensor")) {
    auto* managed = static_cast<ManagedTensor*>(PyCapsule_GetPointer(c, "dltensor"));
    PyCapsule_SetName(c, "used_dltensor");
    loan_.hold(managed, false);
    if (access == Access::write)
      refuse("unflagged", argument_, nb::type_name(source_.type()).c_str(), argument_);
    describe(&managed->tensor);
  } else if (PyCapsule_IsValid(c, "used_dltensor_versioned") ||
             PyCapsule_IsValid(c, "used_dltensor")) {
    refuse("used_capsule", argument_);
  } else {
    refuse("no_capsule", argument_, nb::type_name(capsule.type()).c_str());
  }
  if (device_ != said) refuse("device", argument_, device_name(type), id);  // what is lent lies
}

void Imported::hold_versioned(void* pointer) {
  auto* managed = static_cast<ManagedTensorVersioned*>(pointer);
  loan_.hold(managed, true);
  if (managed->version.major != 1) refuse("dlpack_version", argument_, managed->version.major);
  writable_ = !(managed->flags & dlpack::read_only);
  describe(&managed->tensor);
}

// Everything is copied before it is judged, so that it cannot change in between.
void Imported::describe(const void* dltensor) {
  DLTensor t = *static_cast<const DLTensor*>(dltensor);
  set_device(t.device_type, t.device_id);
  set_rank(t.ndim);
  code_ = t.dtype.code, bits_ = t.dtype.bits, lanes_ = t.dtype.lanes;
  if (ndim_ && !t.shape) refuse("no_shape", argument_);
  for (int i = 0; i < ndim_; ++i) shape_[i] = t.shape[i];
  if (empty()) return;
  uint64_t contiguous = 1;  // wraps only for shapes that check_extents refuses
  for (int i = ndim_; i-- > 0; contiguous *= uint64_t(shape_[i]))
    strides_[i] = t.strides ? t.strides[i] : int64_t(contiguous);
  auto address = reinterpret_cast<uintptr_t>(t.data);
  if (address && __builtin_add_overflow(address, t.byte_offset, &address))
    refuse("offset", argument_);
  data_ = reinterpret_cast<void*>(address);
}

void Imported::set_rank(int64_t ndim) {
  if (ndim < 0 || ndim > max_ndim) refuse("axes", argument_, max_ndim, ndim);
  ndim_ = int(ndim);
}

bool Imported::empty() const {
  for (int i = 0; i < ndim_; ++i)
    if (shape_[i] == 0) return true;
  return false;
}

void Imported::set_device(int32_t type, int32_t id) {
  bool host = type == dlpack::cpu || type == dlpack::cuda_host || type == dlpack::rocm_host;
  bool cuda = type == dlpack::cuda || type == dlpack::cuda_managed;
  if (!host && !(cuda && cuda_allowed_)) refuse("device", argument_, device_name(type), id);
  device_ = cuda ? Device{true, id} : Device{};
}

// Before its library is asked of a stream, which is of one device. What is on the CPU may be there
// or not, and that is said by who knows.
void Imported::check_device(const Where& where) const {
  if (device_.cuda && where.first) check_beside(*where.first);
}

void Imported::check_beside(const Imported& first) const {
  if (device_ != first.device_)
    refuse("same_device", argument_, first.argument_, text_of(first.device_), text_of(device_));
}

bool is_array(nb::handle source) { return route_of(source).kind != Route::none; }

}  // namespace fanano
