#include "math/online_softmax.hpp"

#include "../check.hpp"

using namespace fanano;

namespace {

using State = OnlineSoftmax<double>;

// A state after these scores (natural units), one tile.
State state_of(const std::vector<double>& scores) {
  double largest = -infinity<double>;
  for (double s : scores) largest = s > largest || s != s ? s : largest;
  State state;
  state.absorb(largest);
  for (double s : scores) state.l += std::exp(s - pivot(state.m));
  return state;
}

bool same(State a, State b) {
  return check::close(a.lse(), b.lse(), 1e-14 * std::fabs(b.lse()) + 1e-14);
}

}  // namespace

TEST(the_worked_example) {
  State first = state_of({0.1, 0.5, 0.4}), second = state_of({0.2, 0.3, 0.3});
  CHECK(first.m == 0.5);
  CHECK_CLOSE(first.l, 2.57516, 1e-5);
  CHECK(second.m == 0.3);
  CHECK_CLOSE(second.l, 2.90484, 1e-5);
  State both = merge(first, second);
  CHECK(both.m == 0.5);
  CHECK_CLOSE(both.l, 4.95344, 1e-5);
  State whole = state_of({0.1, 0.5, 0.4, 0.2, 0.3, 0.3});
  CHECK_CLOSE(whole.l, 4.95344, 1e-5);
  CHECK_CLOSE(both.lse(), whole.lse(), 1e-14);
}

TEST(nothing_is_the_unit) {
  State none, some = state_of({3, -2});
  CHECK(none.lse() == -infinity<double>);
  CHECK(none.inverse() == 0);
  CHECK(merge(none, none).lse() == -infinity<double>);
  CHECK(merge(none, none).l == 0);
  CHECK(merge(none, some).lse() == some.lse());
  CHECK(merge(some, none).lse() == some.lse());
  CHECK(some.inverse() == 1 / some.l);
}

TEST(merging_is_associative_and_commutative) {
  std::vector<State> states = {state_of({}),      state_of({-infinity<double>}),
                               state_of({0}),     state_of({1e4, 1e4 - 1}),
                               state_of({-1e4}),  state_of({1, 2, 3}),
                               state_of({1e300}), state_of({-1e-300, 700, -700})};
  for (State a : states)
    for (State b : states) {
      CHECK(same(merge(a, b), merge(b, a)));
      for (State c : states) CHECK(same(merge(merge(a, b), c), merge(a, merge(b, c))));
    }
}

TEST(absorbing_returns_the_factor_for_o) {
  State state;
  CHECK(state.absorb(-infinity<double>) == 1 || state.l == 0);
  state.absorb(3);
  state.l = 2;
  CHECK(state.absorb(1) == 1);  // a smaller maximum changes nothing
  CHECK(state.m == 3 && state.l == 2);
  CHECK_CLOSE(state.absorb(5), std::exp(-2.0), 1e-15);
  CHECK_CLOSE(state.l, 2 * std::exp(-2.0), 1e-15);
  CHECK(state.m == 5);
  CHECK(state.absorb(-infinity<double>) == 1);
  CHECK(state.absorb(1e6) == 0);  // what was seen before weighs nothing now
  CHECK(state.m == 1e6 && state.l == 0);
}

TEST(a_nan_stays) {
  double nan = std::nan("");
  CHECK(std::isnan(state_of({1, nan, 2}).lse()));
  CHECK(std::isnan(merge(state_of({1, nan}), state_of({5})).lse()));
  CHECK(std::isnan(merge(state_of({5}), state_of({1, nan})).lse()));
}

TEST(in_float) {
  OnlineSoftmax<float> a, b;
  a.absorb(10), a.l = 1;
  b.absorb(-10), b.l = 3;
  CHECK_CLOSE(merge(a, b).l, 1 + 3 * std::exp(-20.0), 1e-7);
  CHECK_CLOSE(merge(a, b).lse(), 10 + std::log1p(3 * std::exp(-20.0)), 1e-7);
}
