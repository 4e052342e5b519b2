// Instructions that move numbers: where each comes from must be right, bit for bit.
#include "conformance.hpp"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/shuffle.cuh"
#include "ptx/thread.cuh"
#include "ptx/wide.cuh"

namespace conformance {
namespace {

// ---- ldmatrix ----
// Four matrices of 8 x 8 numbers; the rows stand in shared memory in another order.
__host__ __device__ int place_of_row(int row) { return row * 5 % 32; }

template <bool transposed> __global__ void load_matrices(const uint32_t* in, uint32_t* out) {
  __shared__ __align__(16) uint32_t tile[32 * 4];
  for (int i = threadIdx.x; i < 32 * 4; i += 32) tile[i] = in[i];
  __syncwarp();  // the matrices are there
  uint32_t words[4], address = ptx::shared_address(tile + place_of_row(threadIdx.x) * 4);
  if (transposed)
    ptx::ldmatrix_x4_transposed(words, address);
  else
    ptx::ldmatrix_x4(words, address);
  for (int k = 0; k < 4; ++k) out[threadIdx.x * 4 + k] = words[k];
}

void add_matrices(std::vector<Case>& cases, bool transposed) {
  std::vector<uint16_t> numbers(256);
  for (int i = 0; i < 256; ++i) numbers[i] = uint16_t(i * 257 + 1);
  Words inputs, expected;
  for (int i = 0; i < 128; ++i)
    inputs.push_back(uint32_t(numbers[2 * i + 1]) << 16 | numbers[2 * i]);
  for (int lane = 0; lane < 32; ++lane)
    for (int k = 0; k < 4; ++k) {
      auto at = [&](int row, int column) {
        return uint32_t(numbers[size_t(place_of_row(k * 8 + row) * 8 + column)]);
      };
      int r = lane / 4, c = lane % 4 * 2;
      expected.push_back(transposed ? at(c + 1, r) << 16 | at(c, r)
                                    : at(r, c + 1) << 16 | at(r, c));
    }
  if (transposed)
    cases.push_back({"ldmatrix_x4_transposed", inputs, run<load_matrices<true>, 4>, expected});
  else
    cases.push_back({"ldmatrix_x4", inputs, run<load_matrices<false>, 4>, expected});
}

// ---- cp.async ----
// Two groups of copies; the first is waited for alone. Of the second, some have nothing to read.
template <bool all_there> __global__ void copy(const uint32_t* in, uint32_t* out) {
  __shared__ __align__(16) uint32_t tile[2][32 * 4];
  const int lane = threadIdx.x;
  for (int i = lane; i < 2 * 32 * 4; i += 32) tile[i / 128][i % 128] = 0x55555555;
  __syncwarp();  // nobody writes where another's copy goes
  for (int group = 0; group < 2; ++group) {
    const bool there = all_there || group == 0 || lane % 3 != 1;
    ptx::cp_async(ptx::shared_address(&tile[group][lane * 4]), in + group * 128 + lane * 4,
                  there ? 16 : 0);
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<1>();
  for (int k = 0; k < 4; ++k) out[lane * 8 + k] = tile[0][lane * 4 + k];
  ptx::cp_async_wait<0>();
  for (int k = 0; k < 4; ++k) out[lane * 8 + 4 + k] = tile[1][lane * 4 + k];
}

// Of 4 bytes, of which some have nothing to read.
__global__ void copy_floats(const uint32_t* in, uint32_t* out) {
  __shared__ float tile[32];
  const int lane = ptx::thread_index();
  const uint32_t at = ptx::shared_address(&tile[lane]);
  ptx::store_shared(at, 5.f);
  ptx::cp_async_float(at, reinterpret_cast<const float*>(in) + lane, lane % 3 != 1);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  out[lane] = __float_as_uint(ptx::load_shared_float(at));
}

void add_copies(std::vector<Case>& cases) {
  Words inputs, all, some;
  for (uint32_t i = 0; i < 256; ++i) inputs.push_back(0x01010101 * (i + 1) + i);
  for (int lane = 0; lane < 32; ++lane)
    for (int k = 0; k < 8; ++k) {
      uint32_t from = inputs[size_t(k / 4 * 128 + lane * 4 + k % 4)];
      all.push_back(from);
      some.push_back(k >= 4 && lane % 3 == 1 ? 0 : from);
    }
  cases.push_back({"cp_async", inputs, run<copy<true>, 8>, all});
  cases.push_back({"cp_async_zero_fill", inputs, run<copy<false>, 8>, some});
  Words floats(inputs.begin(), inputs.begin() + 32), copied = floats;
  for (size_t lane = 1; lane < 32; lane += 3) copied[lane] = 0;
  cases.push_back({"cp_async_float", floats, run<copy_floats, 1>, copied});
}

// ---- loads and stores of 16 bytes ----
__global__ void wide(const uint32_t* in, uint32_t* out) {
  __shared__ __align__(16) uint32_t tile[32 * 4];
  const int lane = threadIdx.x;
  for (int k = 0; k < 4; ++k)
    ptx::store_shared(ptx::shared_address(tile + (31 - lane) * 4 + k), in[lane * 4 + k]);
  __syncwarp();  // the tile is there
  ptx::store_global(out + lane * 4, ptx::load_shared(ptx::shared_address(tile + lane * 4)));
}

__global__ void wide_global(const uint32_t* in, uint32_t* out) {
  ptx::store_global(out + threadIdx.x * 4, ptx::load_global(in + (31 - threadIdx.x) * 4));
}

// ---- the lanes of a warp ----
__global__ void shuffle(const uint32_t* in, uint32_t* out) {
  for (int k = 0; k < 5; ++k)
    out[threadIdx.x * 5 + k] =
        __float_as_uint(ptx::shuffle_xor(__uint_as_float(in[threadIdx.x]), 1 << k));
}

// Doubles of two words, by butterflies; then numbers and words of any lane.
__global__ void shuffle_more(const uint32_t* in, uint32_t* out) {
  const int lane = threadIdx.x, other = (lane * 7 + 3) % 32;
  const double x = ptx::shuffle_xor(__hiloint2double(int(in[lane * 2 + 1]), int(in[lane * 2])), 5);
  uint32_t* mine = out + lane * 4;
  mine[0] = uint32_t(__double2loint(x)), mine[1] = uint32_t(__double2hiint(x));
  mine[2] = ptx::shuffle(in[lane * 2], other);
  mine[3] = __float_as_uint(ptx::shuffle(__uint_as_float(in[lane * 2 + 1]), other));
}

// Pairs and single numbers of shared memory, and pairs to device memory.
__global__ void pairs(const uint32_t* in, uint32_t* out) {
  __shared__ __align__(8) float tile[32 * 2];
  const int lane = threadIdx.x;
  for (int k = 0; k < 2; ++k)
    ptx::store_shared(ptx::shared_address(tile + (31 - lane) * 2 + k),
                      __uint_as_float(in[lane * 2 + k]));
  __syncwarp();  // the tile is there
  ptx::store_global(reinterpret_cast<float*>(out) + lane * 2,
                    ptx::load_shared_pair(ptx::shared_address(tile + lane * 2)));
}

__global__ void vote(const uint32_t* in, uint32_t* out) {
  uint32_t* mine = out + thread() * 3;
  mine[0] = ptx::ballot(in[thread()] & 1);
  mine[1] = uint32_t(__any_sync(0xffffffff, in[thread()] & 1) != 0);
  mine[2] = uint32_t(__all_sync(0xffffffff, in[thread()] & 1) != 0);
}

void add_lanes(std::vector<Case>& cases) {
  Words inputs, shuffled, reversed;
  for (uint32_t i = 0; i < 128; ++i) inputs.push_back(0x3f800000 + i * 0x10001);
  for (uint32_t i = 0; i < 128; ++i) reversed.push_back(inputs[(31 - i / 4) * 4 + i % 4]);
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (int k = 0; k < 5; ++k) shuffled.push_back(inputs[lane ^ 1U << k]);
  cases.push_back({"wide", inputs, run<wide, 4>, reversed});
  cases.push_back({"wide_global", inputs, run<wide_global, 4>, reversed});
  cases.push_back({"shuffle_xor", inputs, run<shuffle, 5>, shuffled});

  Words both(inputs.begin(), inputs.begin() + 64), moved, turned;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t far = lane ^ 5, other = (lane * 7 + 3) % 32;
    for (uint32_t at : {far * 2, far * 2 + 1, other * 2, other * 2 + 1}) moved.push_back(both[at]);
    for (uint32_t k = 0; k < 2; ++k) turned.push_back(both[(31 - lane) * 2 + k]);
  }
  cases.push_back({"shuffle_more", both, run<shuffle_more, 4>, moved});
  cases.push_back({"pairs", both, run<pairs, 2>, turned});

  Words ballots{0, 0xffffffff, 0x80000001, 0x12345678}, votes, expected;
  for (uint32_t ballot : ballots)
    for (int lane = 0; lane < 32; ++lane) {
      votes.push_back(ballot >> lane & 1);
      for (uint32_t x : {ballot, uint32_t(ballot != 0), uint32_t(ballot == 0xffffffff)})
        expected.push_back(x);
    }
  cases.push_back({"vote", votes, run<vote, 3, 1>, expected});
}

}  // namespace

void add_movement(std::vector<Case>& cases) {
  add_matrices(cases, false);
  add_matrices(cases, true);
  add_copies(cases);
  add_lanes(cases);
}

}  // namespace conformance
