// Moves and conversions.
#include <cmath>
#include <limits>

#include "formats.hpp"
#include "operations.hpp"

namespace emulator {
namespace {

// A number as another type has it. Floats become integers by an explicit rounding, are cut at the
// ends of the range, and NaN becomes 0.
enum Rounding : uint8_t { none, nearest, zero, down, up };

template <class To, class From> To converted(From x, int rounding) {
  if constexpr (std::is_floating_point_v<From>) {
    From r = rounding == nearest ? std::nearbyint(x)
             : rounding == zero  ? std::trunc(x)
             : rounding == down  ? std::floor(x)
             : rounding == up    ? std::ceil(x)
                                 : x;
    if constexpr (std::is_floating_point_v<To>)
      return To(r);
    else {
      using Limits = std::numeric_limits<To>;
      if (std::isnan(r)) return 0;
      if (double(r) >= double(Limits::max())) return Limits::max();
      if (double(r) <= double(Limits::min())) return Limits::min();
      return To(r);
    }
  } else {
    return To(x);
  }
}

template <class To, class From> void convert(Lane& lane, const Instruction& i) {
  To result = converted<To>(lane.get<From>(i.slots[1]), i.kind);
  // A narrow signed result fills its register with its sign.
  if constexpr (Integer<To> && std::is_signed_v<To>)
    lane.set<int64_t>(i.slots[0], int64_t(result));
  else
    lane.set<To>(i.slots[0], result);
}

void decode_convert(Instruction& i, Modifiers& m) {
  std::string from = m.last(), to = m.last();
  m.take("rn");  // a float from an integer or from a wider float, as the host does
  i.kind = 1 + m.take_one_of({"rni", "rzi", "rmi", "rpi"});
  with_type(i, to, [&]<class To>() {
    with_type(i, from, [&]<class From>() {
      if constexpr (!std::is_same_v<To, bool> && !std::is_same_v<From, bool>) {
        bool needs = Float<From> && !Float<To>;
        if (needs && i.kind == none) unsupported(i);
        i.run = convert<To, From>;
      }
    });
  });
}

template <class Format> void widen(Lane& lane, const Instruction& i) {
  lane.set<float>(i.slots[0], Format::widen(lane.get<uint16_t>(i.slots[1])));
}
template <class Format> void narrow(Lane& lane, const Instruction& i) {
  lane.set<uint16_t>(i.slots[0], Format::narrow(lane.get<float>(i.slots[1])));
}
// The first operand goes to the upper half.
template <class Format> void narrow_two(Lane& lane, const Instruction& i) {
  uint32_t high = Format::narrow(lane.get<float>(i.slots[1]));
  uint32_t low = Format::narrow(lane.get<float>(i.slots[2]));
  lane.set<uint32_t>(i.slots[0], high << 16 | low);
}

template <void (*Run)(Lane&, const Instruction&)> void simple(Instruction& i, Modifiers&) {
  i.run = Run;
}

template <class T> void move(Lane& lane, const Instruction& i) {
  lane.set<T>(i.slots[0], lane.get<T>(i.slots[1]));
}

// {a, b} = c and c = {a, b}: the first is the lowest.
template <class T> void move_parts(Lane& lane, const Instruction& i) {
  int to = i.elements(0), from = i.elements(1), bits = 8 * int(sizeof(T));
  uint64_t whole = 0, ones = ~uint64_t(0);
  for (int k = 0; k < from; ++k) {
    int width = bits / from;
    uint64_t part = lane.slots[i.slot(1, k)] & (width == 64 ? ones : (uint64_t(1) << width) - 1);
    whole |= part << (k * width);
  }
  for (int k = 0; k < to; ++k) {
    int width = bits / to;
    lane.slots[i.slot(0, k)] =
        whole >> (k * width) & (width == 64 ? ones : (uint64_t(1) << width) - 1);
  }
}

void decode_move(Instruction& i, Modifiers& m) {
  bool whole = i.elements(0) == 1 && i.elements(1) == 1;
  with_type(i, m.last(), [&]<class T>() { i.run = whole ? move<T> : move_parts<T>; });
}

// Generic addresses of device memory are the addresses themselves.
void same_address(Lane& lane, const Instruction& i) { move<uint64_t>(lane, i); }
void from_shared(Lane& lane, const Instruction& i) {
  lane.set<uint64_t>(i.slots[0], lane.get<uint64_t>(i.slots[1]) + shared_window);
}
void to_shared(Lane& lane, const Instruction& i) {
  lane.set<uint64_t>(i.slots[0], lane.get<uint64_t>(i.slots[1]) - shared_window);
}

}  // namespace

const std::vector<Row> convert_rows = {
    {"cvt", decode_convert},
    {"cvt.f32.f16", simple<widen<Half>>},
    {"cvt.rn.f16.f32", simple<narrow<Half>>},
    {"cvt.rn.f16x2.f32", simple<narrow_two<Half>>},
    {"cvt.f32.bf16", simple<widen<BFloat>>},
    {"cvt.rn.bf16.f32", simple<narrow<BFloat>>},
    {"cvt.rn.bf16x2.f32", simple<narrow_two<BFloat>>},
    {"mov", decode_move},
    {"cvta.global.u64", simple<same_address>},
    {"cvta.to.global.u64", simple<same_address>},
    {"cvta.shared.u64", simple<from_shared>},
    {"cvta.to.shared.u64", simple<to_shared>},
};

}  // namespace emulator
