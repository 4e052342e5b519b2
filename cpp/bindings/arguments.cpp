#include "arguments.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#include "errors.hpp"

namespace fanano {
namespace {

std::string type_of(nb::handle h) { return nb::type_name(h.type()).c_str(); }

// bool, and NumPy's, which is no subclass of it.
bool is_bool(nb::handle h) {
  if (PyBool_Check(h.ptr())) return true;
  std::string type = type_of(h);
  return type == "numpy.bool" || type == "numpy.bool_";
}

// Whether Python has failed in this way; if so the error is cleared, for ours to take its place.
// Any other, an interrupt for one, is the caller's to see.
bool failed_with(PyObject* kind) {
  if (!PyErr_Occurred() || !PyErr_ExceptionMatches(kind)) return false;
  PyErr_Clear();
  return true;
}

}  // namespace

std::string word(nb::handle h, const char* argument) {
  if (!PyUnicode_Check(h.ptr())) refuse("string", argument, type_of(h));
  Py_ssize_t size = 0;
  const char* utf8 = PyUnicode_AsUTF8AndSize(h.ptr(), &size);
  if (utf8 && std::strlen(utf8) == size_t(size)) return utf8;
  PyErr_Clear();
  nb::object shown = nb::steal(PyObject_ASCII(h.ptr()));
  if (!shown.is_valid()) throw nb::python_error();
  refuse("printable", argument, text_of(shown));
}

bool flag(nb::handle h, const char* argument) {
  if (h.ptr() == Py_True || h.ptr() == Py_False) return h.ptr() == Py_True;
  if (is_bool(h)) {
    int truth = PyObject_IsTrue(h.ptr());
    if (truth < 0) throw nb::python_error();
    return truth;
  }
  refuse("flag", argument, type_of(h));
}

double number(nb::handle h, const char* argument) {
  bool boolean = !PyFloat_Check(h.ptr()) && is_bool(h);
  double value = boolean ? -1 : PyFloat_AsDouble(h.ptr());
  if (failed_with(PyExc_OverflowError)) refuse("float64", argument);
  if (boolean || failed_with(PyExc_TypeError) || failed_with(PyExc_ValueError))
    refuse("number", argument, type_of(h));
  if (PyErr_Occurred()) throw nb::python_error();
  return value;
}

int64_t integer(nb::handle h, const char* argument) {
  bool exact = PyLong_CheckExact(h.ptr()), boolean = !exact && is_bool(h);
  nb::object index = exact     ? nb::borrow(h)
                     : boolean ? nb::object()
                               : nb::steal(PyNumber_Index(h.ptr()));
  if (boolean || failed_with(PyExc_TypeError) || failed_with(PyExc_ValueError))
    refuse("integer", argument, type_of(h));
  if (!index.is_valid()) throw nb::python_error();
  int64_t value = PyLong_AsLongLong(index.ptr());
  if (failed_with(PyExc_OverflowError)) refuse("int64", argument, text_of(index));
  return value;
}

std::vector<int64_t> extents(nb::handle h, const char* argument) {
  if (!PyTuple_Check(h.ptr()) && !PyList_Check(h.ptr())) refuse("extents", argument, type_of(h));
  std::vector<int64_t> values;
  for (nb::handle item : nb::borrow<nb::sequence>(h)) values.push_back(integer(item, argument));
  return values;
}

std::string text_of(nb::handle object) {
  nb::object text = nb::steal(PyObject_Str(object.ptr()));
  const char* utf8 = text.is_valid() ? PyUnicode_AsUTF8AndSize(text.ptr(), nullptr) : nullptr;
  if (!utf8) PyErr_Clear();
  return utf8 ? utf8 : "(unprintable)";
}

bool read_int32(nb::handle h, int32_t* value) {
  nb::object index = nb::steal(PyNumber_Index(h.ptr()));
  int64_t wide = index.is_valid() ? PyLong_AsLongLong(index.ptr()) : -1;
  if (failed_with(PyExc_Exception)) return false;
  if (PyErr_Occurred()) throw nb::python_error();
  return (*value = int32_t(wide)) == wide;
}

// An array of numbers beside a query on a device may be there, too.
static void import_numbers(std::optional<Imported>& array, nb::handle h, const char* argument,
                           const Imported* query) {
  bool beside = query && query->device().cuda;
  array.emplace(h, argument, Imported::Access::read, beside ? query->beside() : Where{});
  if (array->device().cuda) array->check_beside(*query);
}

// Whether what is on a device is to be looked at.
static bool looks_at_devices() {
  const char* value = std::getenv("FANANO_CHECK");
  return value && !std::strcmp(value, "1");
}

Numbers::Numbers(nb::handle h, const char* argument, int64_t batch, const Imported* query) {
  if (h.is_none()) return;
  if (PyTuple_Check(h.ptr()) || PyList_Check(h.ptr())) {
    values_ = extents(h, argument);
  } else if (!PyLong_Check(h.ptr()) && is_array(h)) {
    import_numbers(array_, h, argument, query);
    const Imported& array = *array_;
    const bool there = array.device().cuda;
    integers_.scalar = array.scalar();
    integers_.count = array.count();
    check_count(integers_, argument, batch);  // before they are copied
    const DeviceNumbers found = there ? array.device_integers() : DeviceNumbers();
    if (there && !looks_at_devices()) {
      on_device_ = found;
      if (integers_.scalar) integers_.count = batch, integers_.scalar = false;
      integers_.on_device = true;
      integers_.data = static_cast<const int64_t*>(found.data);
      return;
    }
    values_ = there ? std::vector<int64_t>(size_t(integers_.count)) : array.integers();
    if (there) fetch(found, integers_.count, values_.data(), query->device().id, array.stream());
  } else {
    values_ = {integer(h, argument)};
    integers_.scalar = true;
  }
  integers_.data = values_.data(), integers_.count = std::ssize(values_);
}

RealNumbers::RealNumbers(nb::handle h, const char* argument, int64_t batch, int64_t heads,
                         bool batches, const Imported* query) {
  auto is_list = [](nb::handle x) { return PyTuple_Check(x.ptr()) || PyList_Check(x.ptr()); };
  if (h.is_none()) return;
  if (is_list(h)) {
    // What is counted is what was read: a number's own code may change the list it is in.
    int64_t& rows = reals_.shape[0];
    reals_.ndim = 1;
    for (nb::handle row : nb::borrow<nb::sequence>(h)) {
      int ndim = is_list(row) ? 2 : 1;
      if (rows++ && reals_.ndim != ndim) refuse("mixed", argument);
      reals_.ndim = ndim;
      if (ndim == 1) {
        values_.push_back(number(row, argument));
        continue;
      }
      int64_t before = std::ssize(values_);
      for (nb::handle item : nb::borrow<nb::sequence>(row))
        values_.push_back(number(item, argument));
      int64_t size = std::ssize(values_) - before;
      if (rows > 1 && reals_.shape[1] != size) refuse("ragged", argument, reals_.shape[1], size);
      reals_.shape[1] = size;
    }
  } else if (!PyFloat_Check(h.ptr()) && is_array(h)) {
    import_numbers(array_, h, argument, query);
    const Imported& array = *array_;
    if (array.ndim() > 2) refuse("one_or_two_axes", argument, array.ndim());
    const bool there = array.device().cuda;
    reals_.ndim = array.ndim();
    for (int i = 0; i < reals_.ndim; ++i) reals_.shape[i] = array.shape()[i];
    check_reals(reals_, argument, batch, heads, batches);  // before they are copied
    const DeviceNumbers found = there ? array.device_reals() : DeviceNumbers();
    if (there && !looks_at_devices()) {
      on_device_ = found;
      if (reals_.ndim == 0) reals_.ndim = 1, reals_.shape[0] = heads;
      reals_.on_device = true;
      reals_.data = static_cast<const double*>(found.data);
      return;
    }
    if (there) {
      int64_t count = 1;  // of extents that stride 0 makes as large as they like
      for (int i = 0; i < reals_.ndim; ++i)
        if (__builtin_mul_overflow(count, reals_.shape[i], &count)) throw std::bad_alloc();
      values_.resize(size_t(count));
      fetch(found, count, values_.data(), query->device().id, array.stream());
    } else {
      values_ = array.reals();
    }
  } else {
    values_ = {number(h, argument)};
  }
  values_.reserve(1);  // a place, for none at all
  reals_.data = values_.data();
}

Window window(nb::handle h) {
  const char* argument = "window_size";
  if (h.is_none()) return {};
  bool pair = (PyTuple_Check(h.ptr()) || PyList_Check(h.ptr())) && nb::len(h) == 2;
  if (!pair) refuse("pair", argument, type_of(h));
  // Both first: the code of one may change the list.
  nb::sequence pair_of = nb::borrow<nb::sequence>(h);
  nb::object left = pair_of[0], right = pair_of[1];
  auto side = [&](nb::handle x) { return x.is_none() ? int64_t(-1) : integer(x, argument); };
  return {side(left), side(right)};
}

static uint64_t seed_of(nb::handle h) {
  nb::object index = nb::steal(is_bool(h) ? nullptr : PyNumber_Index(h.ptr()));
  if (is_bool(h) || failed_with(PyExc_TypeError) || failed_with(PyExc_ValueError))
    refuse("integer", "seed", type_of(h));
  if (!index.is_valid()) throw nb::python_error();
  int64_t value = PyLong_AsLongLong(index.ptr());
  if (!failed_with(PyExc_OverflowError)) return uint64_t(value);
  uint64_t large = PyLong_AsUnsignedLongLong(index.ptr());
  if (failed_with(PyExc_OverflowError)) refuse("seed", text_of(index));
  return large;
}

DropoutNumbers::DropoutNumbers(nb::handle p, nb::handle seed, nb::handle offset,
                               const Imported* query) {
  Dropout& d = dropout_;
  d.p = number(p, "dropout_p");
  // None first: small calls spend most of their time in such questions.
  if (!seed.is_none() && !PyLong_Check(seed.ptr()) && is_array(seed))
    import_numbers(array_, seed, "seed", query);
  if (array_ && array_->device().cuda) {
    if (!array_->scalar()) refuse("integer", "seed", type_of(seed));
    on_device_ = array_->device_integers();
    d.device_seed = static_cast<const uint64_t*>(on_device_.data);
  } else if (!seed.is_none()) {
    d.seed = seed_of(seed);
  }
  bool four = (PyTuple_Check(offset.ptr()) || PyList_Check(offset.ptr())) && nb::len(offset) == 4;
  if (!four) refuse("offsets", text_of(offset));
  nb::object items = nb::steal(PySequence_Tuple(offset.ptr()));  // a list may change meanwhile
  if (!items.is_valid() || nb::len(items) != 4) refuse("offsets", text_of(offset));
  int64_t* to[] = {&d.batch, &d.head, &d.row, &d.column};
  for (size_t i = 0; i < 4; ++i) *to[i] = integer(items[i], "dropout_offset");
}

}  // namespace fanano
