// What dropout keeps of a tile (math/dropout.hpp), as `Visible` says what is seen: for each key a
// word with a bit for each row of the strip.
#pragma once

#include "../math/dropout.hpp"
#include "block.hpp"
#include "terms.hpp"

namespace fanano::FANANO_ISA {

// The dropout of one head. Off, it keeps everything.
template <class A> struct Kept {
  bool on;
  A factor;  // of what is kept

  Kept(const Problem& p, const Block& b)
      : on(p.dropout.p > 0), factor(on ? A(kept_factor(p.dropout.p)) : A(1)), dropout_(p.dropout),
        least_(least_kept(p.dropout.p)), head_(uint32_t(p.dropout.head + b.head)),
        batch_(uint32_t(p.dropout.batch + b.batch)) {}

  // The rows [row, row + strip_rows) and the keys [j0, j0 + n).
  void look(int64_t row, int64_t j0, int64_t n, uint64_t* rows) const {
    constexpr int w = Words::width;
    static_assert(strip_rows<A> % w == 0);
    for_each_four(j0, n, [&](uint32_t four, int64_t j) {
      uint64_t kept[columns_together] = {};
#pragma GCC unroll 4
      for (int lane = 0; lane < strip_rows<A>; lane += w) {
        SpreadWords row_numbers = spread(count_from(uint32_t(dropout_.row + row + lane)));
        FourWords<SpreadWords> words = philox(
            FourWords<SpreadWords>{all(four), row_numbers, all(head_), all(batch_)}, dropout_.seed,
            [](SpreadWords a, uint32_t m, SpreadWords& high, SpreadWords& low) {
              low = {multiply_words(a.even, m), multiply_words(a.odd, m)};
              high = {{low.even.v >> 32}, {low.odd.v >> 32}};
            });
        for (int i = 0; i < columns_together; ++i)
          kept[i] |= at_least(joined(words.x[i]), least_) << lane;
      }
      for (int i = 0; i < columns_together; ++i)
        if (j + i >= 0 && j + i < n) rows[j + i] = kept[i];
    });
  }

  // p becomes 0 where a pair is dropped: one row, the keys [j0, j0 + n).
  void drop_row(int64_t row, int64_t j0, int64_t n, A* p) const {
    for_each_four(j0, n, [&](uint32_t four, int64_t j) {
      const FourWords<uint32_t> words =
          philox({four, uint32_t(dropout_.row + row), head_, batch_}, dropout_.seed);
      for (int i = 0; i < columns_together; ++i)
        if (j + i >= 0 && j + i < n && words.x[i] < least_) p[j + i] = 0;
    });
  }

 private:
  static FANANO_FN SpreadWords all(uint32_t x) { return {Longs::all(x), Longs::all(x)}; }

  const Dropout& dropout_;
  uint32_t least_, head_, batch_;

  // f(number, j) for the fours of columns that [j0, j0 + n) touches, j where one begins: it may lie
  // before 0, and end beyond n.
  template <class F> FANANO_FN void for_each_four(int64_t j0, int64_t n, F f) const {
    int64_t first = dropout_.column + j0, four = first / columns_together;
    for (int64_t j = four * columns_together - first; j < n; j += columns_together)
      f(uint32_t(four++), j);
  }
};

// Terms of p, [key][row] as weigh() left them, become 0 where `rows` has no bit.
template <class A> FANANO_FN void drop(const uint64_t* rows, int64_t n, A* p) {
  for (int64_t j = 0; j < n; ++j)
    for (int m = 0; m < M; ++m) {
      int64_t lane = m * Vec<A>::width;
      A* at = p + j * strip_rows<A> + lane;
      select_bits(rows[j] >> lane, Vec<A>::load(at), Vec<A>::all(0)).store(at);
    }
}
FANANO_FN void drop(const uint64_t* rows, int64_t n, bfloat16* p) {
  const Pairs none = Pairs::all(0);
  auto pairs = reinterpret_cast<uint32_t*>(p);
  for (int64_t j = 0; j < n; j += 2)
    for (int m = 0; m < M; ++m) {
      int64_t lane = m * Pairs::width;
      uint32_t* at = pairs + j / 2 * strip_rows<float> + lane;
      Pairs x = Pairs::load(at), first = {x.v & 0xffffu}, second = {x.v & 0xffff0000u};
      first = select_bits(rows[j] >> lane, first, none);
      if (j + 1 < n) second = select_bits(rows[j + 1] >> lane, second, none);
      Pairs{first.v | second.v}.store(at);
    }
}

}  // namespace fanano::FANANO_ISA
