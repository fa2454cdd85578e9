// The smallest test framework that does the job: TEST(name) { … CHECK(…) … } registers itself; main.cc runs all and
// counts.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace llmeff::test {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

// Failed checks of the running test.
inline int failures = 0;

// With --small, for tools that make work a hundred times slower: tests with tables of shapes leave out those with more
// multiplications than this.
inline int64_t most_work = INT64_MAX;
inline int left_out = 0;
inline bool fits(int64_t multiplications) {
  if (multiplications <= most_work) return true;
  ++left_out;
  return false;
}

struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

#define TEST(name)                                                           \
  static void test_##name();                                                 \
  static const ::llmeff::test::Register register_##name(#name, test_##name); \
  static void test_##name()

// CHECK(condition, "printf-style context", …): counts and prints a failure, and goes on.
#define CHECK(condition, ...)                                                \
  do {                                                                       \
    if (!(condition) && ++::llmeff::test::failures <= 10) {                  \
      std::printf("  %s:%d: %s is false: ", __FILE__, __LINE__, #condition); \
      std::printf("" __VA_ARGS__);                                           \
      std::printf("\n");                                                     \
    }                                                                        \
  } while (0)

// |got - want| ≤ tolerance · (1 + |want|), with equal infinities and NaN for NaN.
inline bool close(double got, double want, double tolerance) {
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want)) return got == want;
  return std::fabs(got - want) <= tolerance * (1 + std::fabs(want));
}

// Repeatable numbers in [-1, 1) (splitmix64).
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double operator()() { return static_cast<double>(bits() >> 11) * 0x1p-52 - 1; }
  template <class T>
  std::vector<T> vector(int64_t count, double scale = 1) {
    std::vector<T> v(static_cast<size_t>(count));
    for (T& x : v) x = static_cast<T>(scale * (*this)());
    return v;
  }

 private:
  uint64_t state_;
};

}  // namespace llmeff::test
