// Sums and maxima along a contiguous row. Sums run in vector lanes over chunks of a fixed length and in float64 over
// the chunks.
#pragma once

#include "strided.h"
#include "vector_math.h"

namespace llmeff::cpu::LLMEFF_ISA {

inline constexpr int64_t kSumChunk = 1024;

// Σ over i of the lanes of f(i, part), where part is kLanes but for the last vector. Lanes past `part` are left out.
template <class T, class F>
LLMEFF_INLINE double row_sum(int64_t n, const F& f) {
  constexpr int64_t kL = kLanes<T>;
  const int64_t whole = n / kL * kL;
  double sum = 0;
  for (int64_t start = 0; start < whole; start += kSumChunk) {
    const int64_t end = smaller(whole, start + kSumChunk);
    Vec<T> a = {}, b = {};
    int64_t i = start;
    for (; i + 2 * kL <= end; i += 2 * kL) {
      a += f(i, kL);
      b += f(i + kL, kL);
    }
    if (i < end) a += f(i, kL);
    sum += static_cast<double>(reduce_sum<T>(a + b));
  }
  if (whole < n) {
    T lanes[kL];
    store(lanes, f(whole, n - whole));
    for (int64_t i = 0; i < n - whole; ++i) sum += static_cast<double>(lanes[i]);
  }
  return sum;
}

// The maximum; NaN if there is one.
template <class T>
LLMEFF_INLINE T row_max(const T* p, int64_t n) {
  constexpr int64_t kL = kLanes<T>;
  T max = -static_cast<T>(__builtin_inf());
  int64_t i = 0;
  if (n >= kL) {
    Vec<T> a = load(p), b = a;
    for (i = kL; i + 2 * kL <= n; i += 2 * kL) {
      a = nan_max(load(p + i), a);
      b = nan_max(load(p + i + kL), b);
    }
    a = nan_max(b, a);
    T lanes[kL];
    store(lanes, a);
    for (int64_t j = 0; j < kL; ++j) max = nan_max(lanes[j], max);
  }
  for (; i < n; ++i) max = nan_max(p[i], max);
  return max;
}

}  // namespace llmeff::cpu::LLMEFF_ISA
