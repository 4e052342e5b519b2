// Instructions that are a function of their operands: one struct for each, applied to a type.
#pragma once

#include <type_traits>

#include "block.hpp"
#include "instructions.hpp"

namespace emulator {

template <class T, class Op, int Operands> void apply(Lane& lane, const Instruction& i) {
  const int* s = i.slots.data();
  if constexpr (Operands == 1)
    lane.set<T>(s[0], Op{}(lane.get<T>(s[1])));
  else if constexpr (Operands == 2)
    lane.set<T>(s[0], Op{}(lane.get<T>(s[1]), lane.get<T>(s[2])));
  else
    lane.set<T>(s[0], Op{}(lane.get<T>(s[1]), lane.get<T>(s[2]), lane.get<T>(s[3])));
}

// As Op has it for this type; an Op that has nothing for it refuses it.
template <class Op, int Operands> void choose(Instruction& i, const std::string& type) {
  if (int(i.slots.size()) != Operands + 1) unsupported(i);
  with_type(i, type, [&]<class T>() {
    constexpr bool has = [] {
      if constexpr (Operands == 1)
        return requires(T x) { Op{}(x); };
      else if constexpr (Operands == 2)
        return requires(T x) { Op{}(x, x); };
      else
        return requires(T x) { Op{}(x, x, x); };
    }();
    if constexpr (has) i.run = apply<T, Op, Operands>;
  });
}

// Nearest, ties to even, is the only rounding that is known, and what the host does.
template <class Op, int Operands> void number(Instruction& i, Modifiers& m) {
  m.take("rn");
  choose<Op, Operands>(i, m.last());
}

template <class T>
concept Float = std::is_floating_point_v<T>;
template <class T>
concept Integer = std::is_integral_v<T> && !std::is_same_v<T, bool>;
template <class T>
concept Bits = std::is_integral_v<T>;  // predicates too

// Sums and products of integers wrap around.
template <Integer T> auto wrapping(T x) {
  if constexpr (sizeof(T) < 4)
    return uint32_t(x);
  else
    return std::make_unsigned_t<T>(x);
}

}  // namespace emulator
