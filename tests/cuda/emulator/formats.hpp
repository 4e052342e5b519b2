// 16-bit numbers as the hardware rounds them. Written here again, and not taken from cpp/math,
// which is what the kernels use: one wrong belief must not be on both sides.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace emulator {

#ifdef __ARM_FP16_FORMAT_IEEE
using CompilersHalf = __fp16;  // g++ 12 for aarch64 knows no other
#else
using CompilersHalf = _Float16;
#endif

struct Half {
  static float widen(uint16_t bits) { return float(std::bit_cast<CompilersHalf>(bits)); }
  static uint16_t narrow(float x) {
    return std::isnan(x) ? 0x7fff : std::bit_cast<uint16_t>(CompilersHalf(x));
  }
};

struct BFloat {
  static float widen(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }
  static uint16_t narrow(float x) {  // to nearest, ties to even
    if (std::isnan(x)) return 0x7fff;
    uint32_t bits = std::bit_cast<uint32_t>(x), rest = bits & 0xffff, up = bits >> 16;
    return uint16_t(up + (rest > 0x8000 || (rest == 0x8000 && (up & 1))));
  }
};

}  // namespace emulator
