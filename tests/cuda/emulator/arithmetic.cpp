// Sums, products and functions of numbers.
#include <cmath>

#include "operations.hpp"

namespace emulator {
namespace {

struct Add {
  template <Integer T> T operator()(T a, T b) const { return T(wrapping(a) + wrapping(b)); }
  template <Float T> T operator()(T a, T b) const { return a + b; }
};
struct Sub {
  template <Integer T> T operator()(T a, T b) const { return T(wrapping(a) - wrapping(b)); }
  template <Float T> T operator()(T a, T b) const { return a - b; }
};
struct Mul {
  template <Float T> T operator()(T a, T b) const { return a * b; }
};
struct MulLow {
  template <Integer T> T operator()(T a, T b) const { return T(wrapping(a) * wrapping(b)); }
};
struct MulHigh {
  template <Integer T> T operator()(T a, T b) const {
    return T((__int128(a) * __int128(b)) >> (8 * sizeof(T)));
  }
};
struct MadLow {
  template <Integer T> T operator()(T a, T b, T c) const {
    return T(wrapping(a) * wrapping(b) + wrapping(c));
  }
};
struct Fma {
  template <Float T> T operator()(T a, T b, T c) const { return std::fma(a, b, c); }
};
struct Div {  // by 0: the hardware gives all ones, and so no kernel may rely on it
  template <Integer T> T operator()(T a, T b) const {
    return b == 0 ? T(-1) : b == T(-1) && std::is_signed_v<T> ? T(0 - wrapping(a)) : T(a / b);
  }
  template <Float T> T operator()(T a, T b) const { return a / b; }
};
struct Rem {
  template <Integer T> T operator()(T a, T b) const {
    return b == 0 || (std::is_signed_v<T> && b == T(-1)) ? T(0) : T(a % b);
  }
};
struct Neg {
  template <Integer T> T operator()(T a) const { return T(0 - wrapping(a)); }
  template <Float T> T operator()(T a) const { return -a; }
};
struct Abs {
  template <Integer T> T operator()(T a) const { return a < 0 ? T(0 - wrapping(a)) : a; }
  template <Float T> T operator()(T a) const { return std::fabs(a); }
};
// The operand that is a number, where the other one is not; +0 is above -0.
struct Min {
  template <Integer T> T operator()(T a, T b) const { return a < b ? a : b; }
  template <Float T> T operator()(T a, T b) const {
    if (std::isnan(a) || (a == b && !std::signbit(a))) return b;
    return std::isnan(b) || a <= b ? a : b;
  }
};
struct Max {
  template <Integer T> T operator()(T a, T b) const { return a > b ? a : b; }
  template <Float T> T operator()(T a, T b) const {
    if (std::isnan(a) || (a == b && std::signbit(a))) return b;
    return std::isnan(b) || a >= b ? a : b;
  }
};
struct Sqrt {
  template <Float T> T operator()(T a) const { return std::sqrt(a); }
};
struct Rcp {
  template <Float T> T operator()(T a) const { return 1 / a; }
};

// The hardware's are approximations: the tests must allow for what they may be wrong by, for here
// they are right to the last place.
float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
struct Ex2 {
  float operator()(float a) const { return flushed(std::exp2(flushed(a))); }
};
struct Lg2 {
  float operator()(float a) const { return flushed(std::log2(flushed(a))); }
};

struct FastRcp {
  float operator()(float a) const { return flushed(1 / flushed(a)); }
};

template <class Op> void approximate(Instruction& i, Modifiers& m) {
  if (!m.take("approx") || !m.take("ftz") || m.last() != "f32") unsupported(i);
  i.run = apply<float, Op, 1>;
}

void decode_rcp(Instruction& i, Modifiers& m) {
  if (m.take("rn"))
    choose<Rcp, 1>(i, m.last());
  else
    approximate<FastRcp>(i, m);
}

// The product of two numbers in twice their width, and a sum with a third.
template <class T>
using Wide =
    std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
                       std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

template <class T, bool Sum> void wide(Lane& lane, const Instruction& i) {
  using W = Wide<T>;
  W product = W(W(lane.get<T>(i.slots[1])) * W(lane.get<T>(i.slots[2])));
  if constexpr (Sum) product = Add{}(product, lane.get<W>(i.slots[3]));
  lane.set<W>(i.slots[0], product);
}

template <bool Sum> void decode_wide(Instruction& i, Modifiers& m) {
  std::string type = m.last();
  if (type == "u16") i.run = wide<uint16_t, Sum>;
  if (type == "s16") i.run = wide<int16_t, Sum>;
  if (type == "u32") i.run = wide<uint32_t, Sum>;
  if (type == "s32") i.run = wide<int32_t, Sum>;
}

// Sums of numbers of several words: cc leaves a carry, c takes one in. A difference leaves the
// carry of a + ~b + 1, which is 1 where nothing was borrowed.
template <class T, bool In, bool Out, bool Minus> void carried(Lane& lane, const Instruction& i) {
  T a = lane.get<T>(i.slots[1]), b = lane.get<T>(i.slots[2]);
  if (Minus) b = T(~b);
  unsigned __int128 sum = a;
  sum = sum + b + (In ? lane.carry : Minus);
  if (Out) lane.carry = (sum >> (8 * sizeof(T))) & 1;
  lane.set<T>(i.slots[0], T(sum));
}

template <bool In, bool Out, bool Minus> void decode_carried(Instruction& i, Modifiers& m) {
  std::string type = m.last();
  if (type.ends_with("32")) i.run = carried<uint32_t, In, Out, Minus>;
  if (type.ends_with("64")) i.run = carried<uint64_t, In, Out, Minus>;
}

}  // namespace

const std::vector<Row> arithmetic_rows = {
    {"add", number<Add, 2>},
    {"sub", number<Sub, 2>},
    {"mul", number<Mul, 2>},
    {"mul.lo", number<MulLow, 2>},
    {"mul.hi", number<MulHigh, 2>},
    {"mul.wide", decode_wide<false>},
    {"mad.lo", number<MadLow, 3>},
    {"mad.wide", decode_wide<true>},
    {"fma", number<Fma, 3>},
    {"div", number<Div, 2>},
    {"rem", number<Rem, 2>},
    {"neg", number<Neg, 1>},
    {"abs", number<Abs, 1>},
    {"min", number<Min, 2>},
    {"max", number<Max, 2>},
    {"sqrt", number<Sqrt, 1>},
    {"rcp", decode_rcp},
    {"ex2", approximate<Ex2>},
    {"lg2", approximate<Lg2>},
    {"add.cc", decode_carried<false, true, false>},
    {"addc", decode_carried<true, false, false>},
    {"addc.cc", decode_carried<true, true, false>},
    {"sub.cc", decode_carried<false, true, true>},
    {"subc", decode_carried<true, false, true>},
    {"subc.cc", decode_carried<true, true, true>},
};

}  // namespace emulator
