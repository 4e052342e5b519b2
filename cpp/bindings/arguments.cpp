#include "arguments.hpp"

#include <cstring>

namespace fanano {
namespace {

std::string type_of(nb::handle h) { return nb::type_name(h.type()).c_str(); }

// bool, and NumPy's, which is no subclass of it.
bool is_bool(nb::handle h) {
  if (PyBool_Check(h.ptr())) return true;
  std::string type = type_of(h);
  return type == "numpy.bool" || type == "numpy.bool_";
}

}  // namespace

std::string word(nb::handle h, const char* argument) {
  if (!PyUnicode_Check(h.ptr()))
    throw TypeError(std::string(argument) + " must be a string, got " + type_of(h));
  return nb::borrow<nb::str>(h).c_str();
}

bool flag(nb::handle h, const char* argument) {
  if (h.ptr() == Py_True || h.ptr() == Py_False) return h.ptr() == Py_True;
  if (is_bool(h)) return PyObject_IsTrue(h.ptr()) == 1;
  throw TypeError(std::string(argument) + " must be True or False, got " + type_of(h));
}

double number(nb::handle h, const char* argument) {
  double value = is_bool(h) ? -1 : PyFloat_AsDouble(h.ptr());
  if (is_bool(h) || PyErr_Occurred()) {
    PyErr_Clear();
    throw TypeError(std::string(argument) + " must be a number, got " + type_of(h));
  }
  return value;
}

int64_t integer(nb::handle h, const char* argument) {
  nb::object index = nb::steal(is_bool(h) ? nullptr : PyNumber_Index(h.ptr()));
  if (!index.is_valid()) {
    PyErr_Clear();
    throw TypeError(std::string(argument) + " must be an integer, got " + type_of(h));
  }
  int64_t value = PyLong_AsLongLong(index.ptr());
  if (value == -1 && PyErr_Occurred()) {
    PyErr_Clear();
    throw ValueError(std::string(argument) + " is " + nb::str(index).c_str() +
                     ", which does not fit in 64 bits");
  }
  return value;
}

std::vector<int64_t> extents(nb::handle h, const char* argument) {
  if (!PyTuple_Check(h.ptr()) && !PyList_Check(h.ptr()))
    throw TypeError(std::string(argument) + " must be a tuple of integers, got " + type_of(h));
  std::vector<int64_t> values;
  for (nb::handle item : nb::borrow<nb::sequence>(h)) values.push_back(integer(item, argument));
  return values;
}

Numbers::Numbers(nb::handle h, const char* argument) {
  if (h.is_none()) return;
  given_ = true;
  if (PyTuple_Check(h.ptr()) || PyList_Check(h.ptr())) {
    values_ = extents(h, argument);
  } else if (!PyLong_Check(h.ptr()) && is_array(h)) {
    Imported array(h, argument);
    values_ = array.integers();
    scalar_ = array.scalar();
  } else {
    values_ = {integer(h, argument)};
    scalar_ = true;
  }
}

}  // namespace fanano
