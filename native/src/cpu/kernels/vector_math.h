// Functions of a vector beyond simd.h, shared by the activations, the softcap and the losses. float32 runs on vexp;
// float64 calls the C library lane by lane: it is there to check float32 against, not to be fast. vector_log.h,
// vector_trig.h and vector_erf.h have more.
#pragma once

#include <cmath>

#include "simd.h"

namespace llmeff::cpu::LLMEFF_ISA {

// f of every lane; a function that is one instruction (sqrt) becomes one vector instruction.
template <class T, class F>
LLMEFF_INLINE Vec<T> each_lane(Vec<T> x, const F& f) {
  T lanes[kLanes<T>];
  store(lanes, x);
  for (int64_t i = 0; i < kLanes<T>; ++i) lanes[i] = f(lanes[i]);
  return load(lanes);
}

LLMEFF_INLINE float absolute(float x) {
  return __builtin_fabsf(x);
}
LLMEFF_INLINE double absolute(double x) {
  return __builtin_fabs(x);
}
LLMEFF_INLINE int32_t absolute(int32_t x) {
  return x < 0 ? static_cast<int32_t>(0u - static_cast<uint32_t>(x)) : x;
}
LLMEFF_INLINE float root(float x) {
  return __builtin_sqrtf(x);
}
LLMEFF_INLINE double root(double x) {
  return __builtin_sqrt(x);
}

template <class T>
LLMEFF_INLINE Vec<T> vabs(Vec<T> x) {
  return each_lane<T>(x, [](T v) { return absolute(v); });
}

template <class T>
LLMEFF_INLINE Vec<T> vsqrt(Vec<T> x) {
  return each_lane<T>(x, [](T v) { return root(v); });
}

// The running value second: a NaN in either operand stays.
template <class V>
LLMEFF_INLINE V nan_max(V x, V running) {
  return x > running || x != x ? x : running;
}
template <class V>
LLMEFF_INLINE V nan_min(V x, V running) {
  return x < running || x != x ? x : running;
}

// e^x as vexp, but results below the smallest normal number are rounded like all others.
LLMEFF_INLINE Vec<float> vexp_full(Vec<float> x) {
  const Vec<float> hi = splat(88.72283f), lo = splat(-104.0f);
  const Exponential e = exponential(x > hi ? hi : (x < lo ? lo : x));
  const Mask<float> half = e.k >> 1;
  Vec<float> y = e.p * power_of_two(half) * power_of_two(e.k - half);
  y = x > hi ? splat(__builtin_inff()) : y;
  return x == x ? y : x;
}
LLMEFF_INLINE Vec<double> vexp_full(Vec<double> x) {
  return vexp(x);
}

template <class T>
LLMEFF_INLINE Vec<T> vsigmoid(Vec<T> x) {
  return T(1) / (T(1) + vexp(-x));
}

// sigmoid(x) and sigmoid(−x) = 1 − sigmoid(x), both without cancellation.
template <class T>
struct Logistic {
  Vec<T> value, complement;
};
template <class T>
LLMEFF_INLINE Logistic<T> logistic(Vec<T> x) {
  const Vec<T> e = vexp_full(-vabs<T>(x)), large = T(1) / (T(1) + e), small = e * large;
  return {x < T(0) ? small : large, x < T(0) ? large : small};
}

// sigmoid(x) · sigmoid(−x), the slope of sigmoid.
template <class T>
LLMEFF_INLINE Vec<T> logistic_slope(Vec<T> x) {
  const Vec<T> e = vexp_full(-vabs<T>(x)), d = T(1) + e;
  return e / (d * d);
}

// tanh in float32: an odd polynomial (Cephes tanhf) near 0, where 1 − 2/(e^{2|x|} + 1) would cancel.
LLMEFF_INLINE Vec<float> vtanh(Vec<float> x) {
  const Vec<float> a = vabs<float>(x), z = x * x;
  Vec<float> p = z * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const Vec<float> near = x + x * z * p;
  const Vec<float> far = 1.0f - 2.0f / (vexp(a + a) + 1.0f);
  return a < 0.625f ? near : (x < 0.0f ? -far : far);
}
LLMEFF_INLINE Vec<double> vtanh(Vec<double> x) {
  return each_lane<double>(x, [](double v) { return __builtin_tanh(v); });
}

// gelu in the tanh form, x/2·(1 + tanh u) with u = √(2/π)·(x + 0.044715 x³), is x·sigmoid(2u): the same function
// without the cancellation for x < 0. This is 2u, and its derivative.
template <class T>
LLMEFF_INLINE Vec<T> gelu_argument(Vec<T> x) {
  return T(1.5957691216057308) * (x + T(0.044715) * x * x * x);
}
template <class T>
LLMEFF_INLINE Vec<T> gelu_argument_slope(Vec<T> x) {
  return T(1.5957691216057308) * (T(1) + T(3 * 0.044715) * x * x);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
