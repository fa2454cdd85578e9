// Functions of a vector beyond simd.h, shared by the activations, the softcap and the losses. float32 runs on vexp;
// float64 calls the C library lane by lane: it is there to check float32 against, not to be fast.
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

// The running value second: a NaN in either operand stays.
template <class V>
LLMEFF_INLINE V nan_max(V x, V running) {
  return x > running || x != x ? x : running;
}
template <class V>
LLMEFF_INLINE V nan_min(V x, V running) {
  return x < running || x != x ? x : running;
}

template <class T>
LLMEFF_INLINE Vec<T> vsigmoid(Vec<T> x) {
  return T(1) / (T(1) + vexp(-x));
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

// gelu in the tanh form, 0.5·x·(1 + tanh u) = x·sigmoid(2u): the same function without the cancellation for x < 0.
template <class T>
LLMEFF_INLINE Vec<T> vgelu(Vec<T> x) {
  const T k2RootTwoOverPi = T(1.5957691216057308);
  return x * vsigmoid<T>(k2RootTwoOverPi * (x + T(0.044715) * x * x * x));
}

}  // namespace llmeff::cpu::LLMEFF_ISA
