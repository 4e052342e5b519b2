// Dropout: which probabilities are kept, and what they are multiplied by.
//
// Random numbers by counting: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy
// as 1, 2, 3", section 4) turns the counter (column / 4, row, head, batch), under the seed as its
// key, into the four words of four columns of one row. A pair is kept if its word is at least
// floor(p 2^32). So the mask is a function of the seed and of where the pair stands, and nobody has
// to store it: tiles, threads, devices and the backward pass each make their own part of it.
#pragma once

#include <cstdint>

#include "host_device.hpp"

namespace fanano {

inline constexpr int columns_together = 4;

// Four words. W: uint32_t, or a vector of them.
template <class W> struct FourWords { W x[4]; };

// One counter, or a vector of them. multiply(a, m, high, low): the halves of each product.
template <class W, class Multiply>
FANANO_FN FourWords<W> philox(FourWords<W> c, uint64_t key, Multiply multiply) {
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
    W high0, low0, high1, low1;
    multiply(c.x[0], 0xd2511f53u, high0, low0);
    multiply(c.x[2], 0xcd9e8d57u, high1, low1);
    c = {high1 ^ c.x[1] ^ k0, low1, high0 ^ c.x[3] ^ k1, low0};
  }
  return c;
}

FANANO_FN FourWords<uint32_t> philox(FourWords<uint32_t> c, uint64_t key) {
  return philox(c, key, [](uint32_t a, uint32_t m, uint32_t& high, uint32_t& low) {
    uint64_t product = uint64_t(a) * m;
    high = uint32_t(product >> 32), low = uint32_t(product);
  });
}

// floor(p 2^32), p < 1: words below it are dropped. For p = 1 all would have to be; the last word
// that is not meets a factor of 0.
FANANO_FN uint32_t least_kept(double p) { return p < 1 ? uint32_t(p * 0x1p32) : 0xffffffffu; }

// What a probability that is kept is multiplied by.
FANANO_FN double kept_factor(double p) { return p < 1 ? 1 / (1 - p) : 0; }

}  // namespace fanano
