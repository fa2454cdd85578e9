// Sums and maxima along a contiguous row. Sums run in vector lanes over chunks of a fixed length and in float64 over
// the chunks.
#pragma once

#include "strided.h"
#include "vector_math.h"

namespace llmeff::cpu::LLMEFF_ISA {

inline constexpr int64_t kSumChunk = 1024;

// sums[k] = Σ over i of the lanes of terms[k], which f(i, part, terms) sets; part is kLanes but for the last vector,
// whose lanes past `part` are left out.
template <class T, int N, class F>
LLMEFF_INLINE void row_sums(int64_t n, double (&sums)[N], const F& f) {
  constexpr int64_t kL = kLanes<T>;
  const int64_t whole = n / kL * kL;
  for (int k = 0; k < N; ++k) sums[k] = 0;
  Vec<T> terms[N];
  for (int64_t start = 0; start < whole; start += kSumChunk) {
    const int64_t end = smaller(whole, start + kSumChunk);
    Vec<T> a[N] = {}, b[N] = {};
    int64_t i = start;
    for (; i + 2 * kL <= end; i += 2 * kL) {
      f(i, kL, terms);
      for (int k = 0; k < N; ++k) a[k] += terms[k];
      f(i + kL, kL, terms);
      for (int k = 0; k < N; ++k) b[k] += terms[k];
    }
    if (i < end) {
      f(i, kL, terms);
      for (int k = 0; k < N; ++k) a[k] += terms[k];
    }
    for (int k = 0; k < N; ++k) sums[k] += static_cast<double>(reduce_sum<T>(a[k] + b[k]));
  }
  if (whole < n) {
    f(whole, n - whole, terms);
    for (int k = 0; k < N; ++k) {
      T lanes[kL];
      store(lanes, terms[k]);
      for (int64_t i = 0; i < n - whole; ++i) sums[k] += static_cast<double>(lanes[i]);
    }
  }
}

// Σ over i of the lanes of f(i, part), likewise.
template <class T, class F>
LLMEFF_INLINE double row_sum(int64_t n, const F& f) {
  double sum[1];
  row_sums<T>(n, sum, [&f](int64_t i, int64_t part, Vec<T>(&terms)[1]) { terms[0] = f(i, part); });
  return sum[0];
}

// f(i, part) for the vectors of a row, of which only the last may have part < kLanes.
template <class T, class F>
LLMEFF_INLINE void each_vector(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) f(i, kLanes<T>);
  if (i < n) f(i, n - i);
}

// The largest number: NaN is passed over. −∞ if there is none.
template <class T>
LLMEFF_INLINE T row_max_number(const T* p, int64_t n) {
  constexpr int64_t kL = kLanes<T>;
  const Vec<T> none = splat(-static_cast<T>(__builtin_inf()));
  Vec<T> best[4] = {none, none, none, none};
  int64_t i = 0;
  for (; i + 4 * kL <= n; i += 4 * kL)
    for (int k = 0; k < 4; ++k) best[k] = vmax(load(p + i + k * kL), best[k]);
  T max = reduce_max<T>(vmax(vmax(best[0], best[1]), vmax(best[2], best[3])));
  for (; i < n; ++i) max = p[i] > max ? p[i] : max;
  return max;
}

// e^x for x ≤ 0, or above it by no more than a rounding error: the numbers of vexp, without its care for large ones.
LLMEFF_INLINE Vec<float> vexp_to_one(Vec<float> x) {
  const Vec<float> lo = splat(-87.33654f);
  const Exponential e = exponential(x < lo ? lo : x);
  const Vec<float> y = e.p * power_of_two(e.k);  // NaN · anything is NaN
  return x < lo ? Vec<float>{} : y;
}
LLMEFF_INLINE Vec<double> vexp_to_one(Vec<double> x) {
  return vexp(x);
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
