#include "math/dropout.hpp"

#include "../check.hpp"

using namespace fanano;

namespace {

struct Known {
  FourWords<uint32_t> counter;
  uint64_t key;
  uint32_t words[4];
};

}  // namespace

// The answers that its authors publish with their implementation of Philox4x32-10.
TEST(the_words_are_those_of_philox) {
  const Known known[] = {
      {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, ~uint64_t(0), {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       0x299f31d0a4093822,
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Known& k : known) {
    FourWords<uint32_t> found = philox(k.counter, k.key);
    for (int i = 0; i < 4; ++i) CHECK(found.x[i] == k.words[i]);
  }
}

TEST(what_is_kept) {
  CHECK(least_kept(0) == 0);
  CHECK(least_kept(0.5) == 0x80000000u);
  CHECK(least_kept(0x1p-32) == 1);
  CHECK(least_kept(1 - 0x1p-53) == 0xffffffffu);
  CHECK(least_kept(1) == 0xffffffffu);
  CHECK(kept_factor(0) == 1);
  CHECK(kept_factor(0.5) == 2);
  CHECK(kept_factor(1) == 0);
}
