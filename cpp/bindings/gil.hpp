// Working without Python's lock.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <exception>

namespace fanano {

// Takes the lock back. A daemon thread that comes here while the interpreter shuts down is ended by
// Python, before 3.14 by pthread_exit(), whose unwinding C++ would answer with terminate(). It
// waits for the end of the process instead, as Python itself lets it do from 3.14 on.
inline void take_gil(PyThreadState* state) {
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    for (;;) pause();
  }
}

// f() without the lock; what it throws is thrown with the lock held again.
template <class F> void without_gil(F f) {
  PyThreadState* state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    f();
  } catch (...) {
    error = std::current_exception();
  }
  take_gil(state);
  if (error) std::rethrow_exception(error);
}

}  // namespace fanano
