// The whole test framework: a file is a program, a TEST registers itself, a failed CHECK is counted
// and the rest of the test goes on.
#pragma once

#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*run)();
};
inline std::vector<Test> tests;
inline int failures = 0;

struct Registered {
  Registered(const char* name, void (*run)()) { tests.push_back({name, run}); }
};

inline bool report(bool ok, const char* file, int line, const std::string& text) {
  if (!ok && ++failures <= 50) std::printf("%s:%d: %s\n", file, line, text.c_str());
  return ok;
}

// NaN is close to NaN only, an infinity to itself only.
inline bool close(double a, double b, double tolerance) {
  return a == b || std::fabs(a - b) <= tolerance || (std::isnan(a) && std::isnan(b));
}

inline bool report_close(double a, double b, double tolerance, const char* file, int line,
                         const char* a_text, const char* b_text) {
  char text[1000];
  std::snprintf(text, sizeof text, "%s = %.17g, %s = %.17g", a_text, a, b_text, b);
  return report(close(a, b, tolerance), file, line, text);
}

}  // namespace check

#define TEST(name)                                                                                 \
  static void name();                                                                              \
  static const check::Registered registered_##name(#name, name);                                   \
  static void name()

#define CHECK(condition) check::report(bool(condition), __FILE__, __LINE__, #condition)

#define CHECK_CLOSE(a, b, tolerance)                                                               \
  check::report_close(double(a), double(b), double(tolerance), __FILE__, __LINE__, #a, #b)

#define CHECK_THROWS(type, words, ...)                                                             \
  try {                                                                                            \
    __VA_ARGS__;                                                                                   \
    check::report(false, __FILE__, __LINE__, #__VA_ARGS__ " throws nothing");                      \
  } catch (const type& error) {                                                                    \
    check::report(std::string(error.what()).find(words) != std::string::npos, __FILE__, __LINE__,  \
                  std::string("the message lacks '") + words + "': " + error.what());              \
  }

int main() {
  for (const check::Test& test : check::tests) {
    int before = check::failures;
    try {
      test.run();
    } catch (const std::exception& error) {
      check::report(false, test.name, 0, std::string("unexpected: ") + error.what());
    }
    std::printf("%s %s\n", check::failures == before ? "ok    " : "FAILED", test.name);
  }
  std::printf("%zu tests, %d failed checks\n", check::tests.size(), check::failures);
  return check::failures != 0 || check::tests.empty();
}
