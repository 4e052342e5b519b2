// What a kernel asks of a mask (tiles, whole, columns) against what the mask means (visible), by
// brute force over small problems.
#include "math/mask.hpp"

#include "../check.hpp"

using namespace fanano;

namespace {

constexpr int64_t rows = 9, most_keys = 11;

struct Given : Mask { int64_t left, right; };

template <class F> void for_each_mask(F f) {
  for (int64_t keys : {0, 1, 3, 8, 11})
    for (int64_t offset = -12; offset <= 13; ++offset)
      for (int64_t left : {-1, 0, 1, 4, 30})
        for (int64_t right : {-1, 0, 1, 4, 30})
          f(Given{make_mask(Sequence{rows, keys, offset}, left, right), left, right});
}

// The definition, in the words of the contract.
bool may_attend(const Given& mask, int64_t i, int64_t j) {
  int64_t p = i + mask.offset;
  bool there = 0 <= j && j < mask.keys;
  return there && (mask.left < 0 || p - mask.left <= j) && (mask.right < 0 || j <= p + mask.right);
}

}  // namespace

TEST(visible_is_the_definition) {
  for_each_mask([](const Given& mask) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = -1; j <= most_keys; ++j) CHECK(mask.visible(i, j) == may_attend(mask, i, j));
  });
}

TEST(columns_are_what_a_row_sees) {
  for_each_mask([](const Given& mask) {
    for (int64_t i = 0; i < rows; ++i) {
      Range c = mask.columns(i);
      for (int64_t j = 0; j < most_keys; ++j)
        CHECK((c.begin <= j && j < c.end) == may_attend(mask, i, j));
    }
  });
}

TEST(rows_are_what_a_column_is_seen_by) {
  for_each_mask([](const Given& mask) {
    for (int64_t j = -1; j <= most_keys; ++j) {
      Range r = mask.rows(j);
      for (int64_t i = 0; i < rows; ++i)
        CHECK((r.begin <= i && i < r.end) == may_attend(mask, i, j));
    }
  });
}

TEST(tiles_cover_what_is_seen_and_no_more) {
  for_each_mask([](const Given& mask) {
    for (int64_t begin = 0; begin < rows; ++begin)
      for (int64_t end = begin + 1; end <= rows; ++end)
        for (int64_t size : {1, 2, 3, 8}) {
          Range tiles = mask.tiles({begin, end}, size);
          int64_t first = -1, last = -1;
          for (int64_t j = 0; j < most_keys; ++j)
            for (int64_t i = begin; i < end; ++i)
              if (may_attend(mask, i, j)) {
                if (first < 0) first = j / size;
                last = j / size;
              }
          if (first < 0) {
            CHECK(tiles.size() == 0);
          } else {
            CHECK(tiles.begin == first);
            CHECK(tiles.end == last + 1);
          }
        }
  });
}

TEST(whole_means_that_all_is_seen) {
  for_each_mask([](const Given& mask) {
    for (int64_t begin = 0; begin < rows; ++begin)
      for (int64_t end = begin + 1; end <= rows; ++end)
        for (int64_t j0 = 0; j0 < mask.keys; ++j0)
          for (int64_t j1 = j0 + 1; j1 <= mask.keys; ++j1) {
            bool all = true;
            for (int64_t i = begin; i < end; ++i)
              for (int64_t j = j0; j < j1; ++j) all &= may_attend(mask, i, j);
            CHECK(mask.whole({begin, end}, {j0, j1}) == all);
          }
  });
}

TEST(positions_beyond_2_to_the_24) {
  int64_t far = (int64_t(1) << 40) + 1;
  Mask mask = make_mask({4, far + 8, far}, 1, 0);
  CHECK(mask.visible(0, far) && mask.visible(0, far - 1));
  CHECK(!mask.visible(0, far + 1) && !mask.visible(0, far - 2));
  CHECK(mask.columns(2).begin == far + 1 && mask.columns(2).end == far + 3);
}

TEST(numbers_that_would_overflow) {
  const int64_t most = INT64_MAX, least = INT64_MIN;
  for (int64_t offset : {most, least})
    for (int64_t window : {most, most - 1}) {
      int64_t keys = 10, offsets[] = {offset};
      Sequence s = sequence(0, 5, keys, nullptr, nullptr, offsets);
      Mask mask = make_mask(s, window, 0);
      Range c = mask.columns(Range{0, 5});
      bool back = offset == most;  // p - left is then 0 to 5: the window reaches the keys
      CHECK(back ? c.begin <= 1 && c.end == keys : c.size() == 0);
    }
}

TEST(a_window_brings_back_what_an_offset_moved_away) {
  for (int64_t far : {int64_t(1) << 61, int64_t(1) << 62, INT64_MAX - 20}) {
    Mask mask = make_mask({3, 20, far}, far - 10, -1);
    CHECK(mask.columns(0).begin == 10 && mask.columns(0).end == 20);
    CHECK(mask.columns(2).begin == 12);
    mask = make_mask({3, 20, -far}, -1, far + 5);
    CHECK(mask.columns(0).begin == 0 && mask.columns(0).end == 6);
  }
}
