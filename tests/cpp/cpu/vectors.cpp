// Compiled once for each row of the ISA table, with its flags.
#include "vectors.hpp"

#include "cpu/convert.hpp"
#include "cpu/exp2.hpp"
#include "cpu/terms.hpp"

#define FANANO_TEXT(x) #x
#define FANANO_NAME(x) FANANO_TEXT(x)

namespace fanano::FANANO_ISA {

namespace {

template <class T, Vec<T> (*F)(Vec<T>)> void map(const T* x, T* out, int64_t n) {
  for (int64_t i = 0; i < n; i += Vec<T>::width) F(Vec<T>::load(x + i)).store(out + i);
}

template <class T> Vec<T> exp2_of(Vec<T> x) { return exp2(x, T(1 - bias<T>)); }
template <class T> Vec<T> exp_of(Vec<T> x) { return exp(x); }
template <class T> Vec<T> tanh_of(Vec<T> x) { return tanh(x); }
template <class T> Vec<T> ceil_of(Vec<T> x) { return ceil(x); }

template <class T> void to_floats(const uint16_t* x, int64_t stride, float* out, int64_t n) {
  widen(reinterpret_cast<const T*>(x), stride, out, n);
}
template <class T> void from_floats(const float* x, uint16_t* out, int64_t stride, int64_t n) {
  narrow(x, reinterpret_cast<T*>(out), stride, n);
}

int compare(const float* a, const float* b) {
  Vec<float> x = Vec<float>::load(a), y = Vec<float>::load(b);
  return any_less(x, y) | all_less(x, y) << 1;
}

Vec<float> exp2_rounded_of(Vec<float> x) { return exp2_rounded(x, 1 - bias<float>); }

void join(const float* x, const float* y, uint16_t* to, int64_t n) {
  for (int64_t i = 0; i < n; i += Vec<float>::width)
    joined(Vec<float>::load(x + i), Vec<float>::load(y + i))
        .store(reinterpret_cast<uint32_t*>(to + 2 * i));
}

// A template, so that nothing is looked up where there is no such instruction.
template <class A> constexpr auto pair_products() {
  void (*multiply)(const uint16_t*, const uint16_t*, A*, int64_t) = nullptr;
  if constexpr (bf16_dot)
    multiply = [](const uint16_t* p, const uint16_t* q, A* c, int64_t n) {
      auto load = [](const uint16_t* x) {
        return Terms<bfloat16>::load(reinterpret_cast<const bfloat16*>(x));
      };
      for (int64_t i = 0; i < n; i += Vec<A>::width)
        fma(load(p + 2 * i), load(q + 2 * i), Vec<A>::load(c + i)).store(c + i);
    };
  return multiply;
}

}  // namespace

extern const VectorFunctions vector_functions;
const VectorFunctions vector_functions = {
    FANANO_NAME(FANANO_ISA),
    map<float, exp2_of>,
    map<double, exp2_of>,
    map<float, exp_of>,
    map<double, exp_of>,
    map<float, tanh_of>,
    map<double, tanh_of>,
    map<float, ceil_of>,
    map<double, ceil_of>,
    Vec<float>::width,
    compare,
    to_floats<float16>,
    to_floats<bfloat16>,
    from_floats<float16>,
    from_floats<bfloat16>,
    map<float, exp2_rounded_of>,
    join,
    pair_products<float>(),
};

}  // namespace fanano::FANANO_ISA
