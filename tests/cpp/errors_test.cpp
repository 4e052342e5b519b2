// The table of refusals. Its rows are provoked one by one from Python.
#include "errors.hpp"

#include "check.hpp"

using namespace fanano;

TEST(blanks_are_filled_from_left_to_right) {
  CHECK(filled({"", Error::type, "{a} and {b}."}, {"1", "two"}) == "1 and two.");
  CHECK(filled({"", Error::type, "no blank"}, {}) == "no blank");
  CHECK(filled({"", Error::type, "{a}{b}"}, {"{x}", ""}) == "{x}");
}

TEST(a_row_says_which_error_and_in_which_words) {
  CHECK_THROWS(TypeError, "q must be an integer, got str", refuse("integer", "q", "str"));
  CHECK_THROWS(ValueError, "scale must be a finite number, got inf", refuse("scale", HUGE_VAL));
  CHECK_THROWS(ValueError,
               "softcap must be a positive finite number, or 0 or None for none, got -1e-30",
               refuse("softcap", -1e-30));
  CHECK(refusal("threads", -1, 9) == "num_threads: got -1, expected at least 1 and at most 9");
}

TEST(ids_and_blanks_are_words) {
  for (const Refusal& row : refusals) {
    int same = 0;
    for (const Refusal& other : refusals) same += row.id == other.id || row.text == other.text;
    CHECK(same == 1);
    bool inside = false;
    for (char c : row.text) {
      if (c == '{' || c == '}')
        CHECK(inside == (c == '}')), inside = !inside;
      else
        CHECK(!inside || c == '_' || (c >= 'a' && c <= 'z'));
    }
    CHECK(!inside);
  }
}
