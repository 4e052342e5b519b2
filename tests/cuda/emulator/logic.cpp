// Bits, comparisons and choices.
#include <bit>
#include <cmath>

#include "operations.hpp"

namespace emulator {
namespace {

struct And {
  template <Bits T> T operator()(T a, T b) const { return T(a & b); }
};
struct Or {
  template <Bits T> T operator()(T a, T b) const { return T(a | b); }
};
struct Xor {
  template <Bits T> T operator()(T a, T b) const { return T(a ^ b); }
};
struct Not {
  template <Integer T> T operator()(T a) const { return T(~a); }
  bool operator()(bool a) const { return !a; }
};

template <class T, bool Left> void shift(Lane& lane, const Instruction& i) {
  T a = lane.get<T>(i.slots[1]);
  uint32_t by = lane.get<uint32_t>(i.slots[2]), bits = 8 * sizeof(T);
  if constexpr (Left)
    lane.set<T>(i.slots[0], by >= bits ? T(0) : T(wrapping(a) << by));
  else if (by < bits)
    lane.set<T>(i.slots[0], T(a >> by));
  else
    lane.set<T>(i.slots[0], a < 0 ? T(-1) : T(0));
}

template <bool Left> void decode_shift(Instruction& i, Modifiers& m) {
  with_type(i, m.last(), [&]<class T>() {
    if constexpr (Integer<T>) i.run = shift<T, Left>;
  });
}

// The upper or lower half of a pair of words, shifted.
template <bool Left, bool Clamp> void funnel(Lane& lane, const Instruction& i) {
  uint64_t low = lane.get<uint32_t>(i.slots[1]), high = lane.get<uint32_t>(i.slots[2]);
  uint32_t by = lane.get<uint32_t>(i.slots[3]), both = Clamp ? (by > 32 ? 32 : by) : by % 32;
  uint64_t pair = high << 32 | low;
  lane.set<uint32_t>(i.slots[0], Left ? uint32_t((pair << both) >> 32) : uint32_t(pair >> both));
}

template <bool Left> void decode_funnel(Instruction& i, Modifiers& m) {
  if (m.last() != "b32") unsupported(i);
  if (m.take("wrap")) i.run = funnel<Left, false>;
  if (m.take("clamp")) i.run = funnel<Left, true>;
}

// The lowest bits of a, put into b: where they begin there, and how many they are.
template <class T> void insert(Lane& lane, const Instruction& i) {
  uint32_t begin = lane.get<uint32_t>(i.slots[3]) & 255, n = lane.get<uint32_t>(i.slots[4]) & 255;
  constexpr uint32_t bits = 8 * sizeof(T);
  T ones = n >= bits ? T(-1) : T((T(1) << n) - 1), field = begin >= bits ? T(0) : T(ones << begin);
  T a = begin >= bits ? T(0) : T(lane.get<T>(i.slots[1]) << begin);
  lane.set<T>(i.slots[0], T((lane.get<T>(i.slots[2]) & ~field) | (a & field)));
}

void decode_insert(Instruction& i, Modifiers& m) {
  i.run = m.last() == "b32" ? insert<uint32_t> : insert<uint64_t>;
}

template <class T> void count_ones(Lane& lane, const Instruction& i) {
  lane.set<uint32_t>(i.slots[0], uint32_t(std::popcount(lane.get<T>(i.slots[1]))));
}
template <class T> void leading_zeros(Lane& lane, const Instruction& i) {
  lane.set<uint32_t>(i.slots[0], uint32_t(std::countl_zero(lane.get<T>(i.slots[1]))));
}

// Bytes of a pair of words, chosen by four digits.
void permute(Lane& lane, const Instruction& i) {
  uint64_t pair = uint64_t(lane.get<uint32_t>(i.slots[2])) << 32 | lane.get<uint32_t>(i.slots[1]);
  uint32_t digits = lane.get<uint32_t>(i.slots[3]), result = 0;
  for (int b = 0; b < 4; ++b) {
    uint32_t digit = digits >> 4 * b & 15, byte = uint32_t(pair >> 8 * (digit & 7)) & 255;
    if (digit & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * b;
  }
  lane.set<uint32_t>(i.slots[0], result);
}

template <class T> void select(Lane& lane, const Instruction& i) {
  lane.set<T>(i.slots[0], lane.get<T>(i.slots[lane.get<bool>(i.slots[3]) ? 1 : 2]));
}

void decode_select(Instruction& i, Modifiers& m) {
  with_type(i, m.last(), [&]<class T>() { i.run = select<T>; });
}

// lo, ls, hi and hs are those of unsigned numbers; a u makes a comparison true of a NaN.
const std::vector<std::string> comparisons = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",
                                              "lo",  "ls",  "hi",  "hs",  "equ", "neu",
                                              "ltu", "leu", "gtu", "geu", "num", "nan"};

template <class T> bool holds(int comparison, T a, T b) {
  bool unordered = a != a || b != b;
  switch (comparison) {
    case 0: return a == b;
    case 1: return a != b && !unordered;
    case 2:
    case 6: return a < b;
    case 3:
    case 7: return a <= b;
    case 4:
    case 8: return a > b;
    case 5:
    case 9: return a >= b;
    case 16: return !unordered;
    case 17: return unordered;
    default: return unordered || holds(comparison - 10, a, b);
  }
}

enum Joined : uint8_t { alone, with_and, with_or, with_xor };

template <class T, Joined joined> void compare(Lane& lane, const Instruction& i) {
  bool result = holds(i.kind, lane.get<T>(i.slot(1)), lane.get<T>(i.slot(2)));
  bool both[2] = {result, !result};
  for (int k = 0; k < i.elements(0); ++k) {
    bool c = joined == alone ? false : lane.get<bool>(i.slot(3));
    bool value = joined == with_and   ? both[k] && c
                 : joined == with_or  ? both[k] || c
                 : joined == with_xor ? both[k] != c
                                      : both[k];
    lane.set<bool>(i.slot(0, k), value);
  }
}

void decode_compare(Instruction& i, Modifiers& m) {
  with_type(i, m.last(), [&]<class T>() {
    i.kind = m.take_one_of(comparisons);
    if (i.kind < 0) unsupported(i);
    i.run = compare<T, alone>;
    if (m.take("and")) i.run = compare<T, with_and>;
    if (m.take("or")) i.run = compare<T, with_or>;
    if (m.take("xor")) i.run = compare<T, with_xor>;
  });
}

template <class Op, int Operands> void bits(Instruction& i, Modifiers& m) {
  choose<Op, Operands>(i, m.last());
}

template <void (*Word)(Lane&, const Instruction&), void (*Double)(Lane&, const Instruction&)>
void by_width(Instruction& i, Modifiers& m) {
  i.run = m.last() == "b32" ? Word : Double;
}

}  // namespace

const std::vector<Row> logic_rows = {
    {"and", bits<And, 2>},
    {"or", bits<Or, 2>},
    {"xor", bits<Xor, 2>},
    {"not", bits<Not, 1>},
    {"shl", decode_shift<true>},
    {"shr", decode_shift<false>},
    {"shf.l", decode_funnel<true>},
    {"shf.r", decode_funnel<false>},
    {"bfi", decode_insert},
    {"popc", by_width<count_ones<uint32_t>, count_ones<uint64_t>>},
    {"clz", by_width<leading_zeros<uint32_t>, leading_zeros<uint64_t>>},
    {"prmt", by_width<permute, nullptr>},
    {"selp", decode_select},
    {"setp", decode_compare},
};

}  // namespace emulator
