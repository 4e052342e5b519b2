// What XLA hears of a call.
#pragma once

#include <xla/ffi/api/ffi.h>

#include <exception>
#include <new>

#include "errors.hpp"

namespace fanano {

// compute(), with whatever it throws as XLA wants to hear of it.
template <class F> xla::ffi::Error answer(F compute) {
  using xla::ffi::Error, xla::ffi::ErrorCode;
  try {
    compute();
    return Error::Success();
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kResourceExhausted, "fanano: out of memory");
  } catch (const TypeError& error) {
    return Error::InvalidArgument(error.what());
  } catch (const ValueError& error) {
    return Error::InvalidArgument(error.what());
  } catch (const NotImplementedError& error) {
    return Error(ErrorCode::kUnimplemented, error.what());
  } catch (const std::exception& error) {
    return Error::Internal(error.what());
  }
}

}  // namespace fanano
