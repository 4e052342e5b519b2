// Values that are NaN or infinite: they reach the rows that see them and no others.
//
// A row's weights of what it does not see are 0, but 0 times a NaN or an infinity is NaN. So the
// products take zeros in place of such values, and what these would have done to the sums is found
// by counting: fragments of codes in place of the values and of ones in place of the weights are
// multiplied. A code has 8 bits, which both formats hold: 1 for what makes sums +inf, 128 for -inf,
// and both for NaN. Of 64 keys at most 64 add a 1: sums of codes can be read.
#pragma once

#include "fragments.cuh"
#include "reduce.cuh"
#include "row_bits.cuh"

namespace fanano::cuda {

template <class T> struct Codes;
template <> struct Codes<bfloat16> {
  static constexpr uint32_t infinite = 0x7f80, plus = 0x3f80, minus = 0x4300, both = 0x4301;
};
template <> struct Codes<float16> {
  static constexpr uint32_t infinite = 0x7c00, plus = 0x3c00, minus = 0x5800, both = 0x5808;
};

// Of the number in the lower half of x: its code, 0 of a finite one.
template <class T> __device__ __forceinline__ uint32_t code(uint32_t x) {
  const uint32_t size = x & 0x7fff;
  return size < Codes<T>::infinite   ? 0
         : size > Codes<T>::infinite ? Codes<T>::both
         : x & 0x8000                ? Codes<T>::minus
                                     : Codes<T>::plus;
}

// A pair of numbers, zeros where they are not finite; and f of both halves of a pair.
template <class F> __device__ __forceinline__ uint32_t for_halves(uint32_t pair, F f) {
  return f(pair & 0xffff) | f(pair >> 16) << 16;
}
template <class T> __device__ __forceinline__ uint32_t finite(uint32_t pair) {
  return for_halves(pair, [](uint32_t x) { return code<T>(x) ? 0 : x; });
}

// Two bits of a row: 1 where they are set.
template <class T> __device__ __forceinline__ uint32_t ones(RowBits bits) {
  return (bits & 1 ? Codes<T>::plus : 0) | (bits & 2 ? Codes<T>::plus << 16 : 0);
}

// To a sum, what the sum of its terms' codes says.
__device__ __forceinline__ float with_special(float o, float codes) {
  const int n = int(codes);
  const bool plus = n % 128 != 0, minus = n >= 128;
  return plus && minus ? o + __int_as_float(0x7fc00000)
         : plus        ? o + infinity<float>
         : minus       ? o - infinity<float>
                       : o;
}

// seen, kept: of the lane's row. What is seen and dropped has the weight 0: its product is NaN. One
// fragment of rows after the other: this is rare, and the caller's sums leave few registers.
template <class T, int M, int N, int Dim>
__device__ __forceinline__ void accumulate_specials(RowBits seen, RowBits kept,
                                                    SwizzledTile<T, Dim> v_smem,
                                                    float (&o)[M][Dim / 8][4]) {
  constexpr int Keys = N * 8;
#pragma unroll
  for (int m = 0; m < M; ++m) {
    RowBits bits[2], dropped[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = m * 16 + half * 8 + threadIdx.x % 32 / 4;
      bits[half] = fetch_bits<Keys>(seen & kept, r);
      dropped[half] = fetch_bits<Keys>(seen & ~kept, r);
    }
#pragma unroll
    for (int d = 0; d < Dim / 8; d += 2) {
      float codes[2][4] = {};
#pragma unroll 1
      for (int i = 0; i < N / 2; ++i) {
        uint32_t v_frag[4], nan_frag[4], kept_frag[4], dropped_frag[4];
        read_values(v_smem, i, d, v_frag);
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          v_frag[part] = for_halves(v_frag[part], [](uint32_t x) { return code<T>(x); });
          nan_frag[part] =
              for_halves(v_frag[part], [](uint32_t x) { return x ? Codes<T>::both : 0; });
          const int shift = i * 16 + part / 2 * 8;
          kept_frag[part] = ones<T>(bits[part % 2] >> shift);
          dropped_frag[part] = ones<T>(dropped[part % 2] >> shift);
        }
        ptx::mma(T{}, codes[0], kept_frag, v_frag[0], v_frag[1]);
        ptx::mma(T{}, codes[1], kept_frag, v_frag[2], v_frag[3]);
        ptx::mma(T{}, codes[0], dropped_frag, nan_frag[0], nan_frag[1]);
        ptx::mma(T{}, codes[1], dropped_frag, nan_frag[2], nan_frag[3]);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        o[m][d][e] = with_special(o[m][d][e], codes[0][e]);
        o[m][d + 1][e] = with_special(o[m][d + 1][e], codes[1][e]);
      }
    }
  }
}

// O += P V. Carefully: values that are not finite reach the rows that see them and no others.
template <class T, int M, int N, int Dim>
__device__ __forceinline__ void
accumulate_carefully(bool careful, const float (&p)[M][N][4], RowBits seen, RowBits kept,
                     SwizzledTile<T, Dim> v_smem, float (&o)[M][Dim / 8][4]) {
  if (careful) {
    accumulate(p, v_smem, o, [](uint32_t (&v_frag)[4]) {
#pragma unroll
      for (int part = 0; part < 4; ++part) v_frag[part] = finite<T>(v_frag[part]);
    });
    accumulate_specials<T, M, N>(seen, kept, v_smem, o);
  } else {
    accumulate(p, v_smem, o, [](uint32_t (&)[4]) {});
  }
}

// Whether some thread of the block has a sum that is not finite. smem has a place for each warp.
template <int Warps, int M, int D>
__device__ bool broken(const float (&o)[M][D][4], float (&of_warp_smem)[Warps]) {
  float none = 0;  // NaN if there is
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int d = 0; d < D; ++d)
#pragma unroll
      for (int e = 0; e < 4; ++e) none = __fmaf_rn(o[m][d][e], 0, none);
  return block_max(none == 0 ? 0.f : 1.f, of_warp_smem) > 0;
}

}  // namespace fanano::cuda
