#include "math/sequences.hpp"

#include "../check.hpp"

using namespace fanano;

TEST(full_lengths_align_to_the_lower_right) {
  Sequence s = sequence(0, 5, 9, nullptr, nullptr, nullptr);
  CHECK(s.queries == 5 && s.keys == 9 && s.offset == 4);
  s = sequence(0, 9, 5, nullptr, nullptr, nullptr);
  CHECK(s.offset == -4);
}

TEST(each_sequence_uses_its_own_lengths) {
  const int64_t queries[] = {5, 2}, keys[] = {9, 3}, offsets[] = {7, -1};
  for (int b : {0, 1}) {
    Sequence s = sequence(b, 5, 9, queries, keys, nullptr);
    CHECK(s.queries == queries[b] && s.keys == keys[b] && s.offset == keys[b] - queries[b]);
    s = sequence(b, 5, 9, queries, keys, offsets);
    CHECK(s.offset == offsets[b]);
  }
}

TEST(lengths_are_clamped_so_that_nothing_leaves_the_arrays) {
  const int64_t bad[] = {-3, 100};
  CHECK(sequence(0, 5, 9, bad, bad, nullptr).queries == 0);
  CHECK(sequence(0, 5, 9, bad, bad, nullptr).keys == 0);
  CHECK(sequence(1, 5, 9, bad, bad, nullptr).queries == 5);
  CHECK(sequence(1, 5, 9, bad, bad, nullptr).keys == 9);
}

TEST(a_range_is_never_negative) {
  CHECK((Range{3, 7}.size()) == 4);
  CHECK((Range{7, 3}.size()) == 0);
  CHECK((Range{}.size()) == 0);
}
