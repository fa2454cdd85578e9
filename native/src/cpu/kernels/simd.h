// Vectors of the instruction set that this translation unit is compiled for, on GCC's and Clang's vector extensions:
// arithmetic, comparison and `condition ? a : b` work on them as on numbers; a·b + c contracts to one fused
// multiply-add. Google Highway would do the same; this needs nothing installed on the user's machine and is one page.
#pragma once

#include <cstdint>
#include <cstring>

#include "llmeff/view.h"

namespace llmeff::cpu::LLMEFF_ISA {

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));
  typedef int32_t mask __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));
  typedef int64_t mask __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));
};

typedef uint32_t WordLanes __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));

template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
using Mask = typename VectorOf<T>::mask;

template <class T>
inline constexpr int64_t kLanes = LLMEFF_VECTOR_BYTES / static_cast<int64_t>(sizeof(T));

template <class T>
LLMEFF_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LLMEFF_INLINE void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
// The first n lanes (n < kLanes), the others zero.
template <class T>
LLMEFF_INLINE Vec<T> load_part(const T* p, int64_t n) {
  Vec<T> v = {};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <class T>
LLMEFF_INLINE void store_part(T* p, Vec<T> v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}
template <class T>
LLMEFF_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};
}
template <class T>
LLMEFF_INLINE Vec<T> iota() {
  Vec<T> v;
  for (int64_t i = 0; i < kLanes<T>; ++i) v[i] = static_cast<T>(i);
  return v;
}

// NaN in the second operand is kept, in the first is lost: put the running value second where NaN must survive.
template <class V>
LLMEFF_INLINE V vmax(V a, V b) {
  return a > b ? a : b;
}

// Horizontal sum and maximum in a fixed order of lanes (pairwise halves).
template <class T>
LLMEFF_INLINE T reduce_sum(Vec<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int64_t half = kLanes<T> / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}
template <class T>
LLMEFF_INLINE T reduce_max(Vec<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int64_t half = kLanes<T> / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

// e^x = p · 2^k in float32: x = k·ln 2 + r, |r| ≤ ln 2 / 2, p = e^r by a polynomial (relative error 2^-28).
struct Exponential {
  Vec<float> p;
  Mask<float> k;
};
LLMEFF_INLINE Exponential exponential(Vec<float> x) {
  const Vec<float> magic = splat(12582912.0f);  // 1.5 · 2^23: adding it rounds to the nearest integer
  const Vec<float> shifted = x * 1.442695041f + magic;
  const Vec<float> k = shifted - magic;
  Vec<float> r = x - k * 0.693145752f;
  r = r - k * 1.42860677e-6f;
  Vec<float> p = splat(1.381449601e-3f);
  p = p * r + 8.36878026e-3f;
  p = p * r + 4.166839374e-2f;
  p = p * r + 0.1666652011f;
  p = p * r + 0.4999999341f;
  p = p * r + 1.0f;
  return {p * r + 1.0f, (Mask<float>)shifted - 0x4B400000};
}
// 2^k for -127 ≤ k ≤ 127; 2^-127 comes out as 0.
LLMEFF_INLINE Vec<float> power_of_two(Mask<float> k) {
  return (Vec<float>)((k + 127) << 23);
}

// e^x to 1 ulp in float32. Results below the smallest normal number are 0; e^-inf = 0, overflow = inf, NaN stays.
LLMEFF_INLINE Vec<float> vexp(Vec<float> x) {
  const Vec<float> hi = splat(88.72283f), lo = splat(-87.33654f);
  const Exponential e = exponential(x > hi ? hi : (x < lo ? lo : x));
  // k may be 128 at the top of the range: multiply by 2^(k-1) and then by 2, so that the exponent bits never overflow.
  Vec<float> y = e.p * power_of_two(e.k - 1) * 2.0f;
  y = x < lo ? Vec<float>{} : y;
  y = x > hi ? splat(__builtin_inff()) : y;
  return x == x ? y : x;
}
LLMEFF_INLINE Vec<double> vexp(Vec<double> x) {
  Vec<double> y = x;
  for (int64_t i = 0; i < kLanes<double>; ++i) y[i] = __builtin_exp(x[i]);
  return y;
}

}  // namespace llmeff::cpu::LLMEFF_ISA
