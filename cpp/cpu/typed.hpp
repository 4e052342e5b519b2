// From the dtype of an array to a type of the compiler's.
#pragma once

#include "../problem.hpp"
#include "simd/simd.hpp"

namespace fanano::FANANO_ISA {

template <class F> FANANO_FN void with_type(Dtype dtype, F f) {
  switch (dtype) {
    case Dtype::float64: return f.template operator()<double>();
    case Dtype::float32: return f.template operator()<float>();
    case Dtype::bfloat16: return f.template operator()<bfloat16>();
    case Dtype::float16: return f.template operator()<float16>();
    case Dtype::boolean: return;  // of masks alone
  }
}

// f<A>(), A the type in which sums of this dtype are made.
template <class F> FANANO_FN void with_accumulator(Dtype dtype, F f) {
  if (dtype == Dtype::float64)
    f.template operator()<double>();
  else
    f.template operator()<float>();
}

// with_type() for the elements of a mask, of which booleans are bytes.
template <class F> FANANO_FN void with_element(Dtype dtype, F f) {
  if (dtype == Dtype::boolean) return f.template operator()<uint8_t>();
  with_type(dtype, f);
}

// f<flags...>().
template <bool... Known, class F> FANANO_FN void with_flags(F f) {
  f.template operator()<Known...>();
}
template <bool... Known, class F, class... More>
FANANO_FN void with_flags(F f, bool flag, More... more) {
  flag ? with_flags<Known..., true>(f, more...) : with_flags<Known..., false>(f, more...);
}

// f<T, Out>: out has the type of the inputs, or the accumulator's for results to be merged.
template <class F> FANANO_FN void with_types(Dtype dtype, Dtype out, F f) {
  with_type(dtype, [&]<class T>() {
    if (dtype == out)
      f.template operator()<T, T>();
    else
      f.template operator()<T, accumulator_t<T>>();
  });
}

}  // namespace fanano::FANANO_ISA
