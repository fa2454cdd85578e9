// Sine and cosine of a vector. float32: x = k·π/2 + r, r in float64 (two parts of π/2, of which k times the first is
// exact), then polynomials for sin r and cos r on |r| ≤ π/4, chosen and signed by k modulo 4. float64: the C library.
#pragma once

#include "vector_math.h"
#include "vector_wide.h"

namespace llmeff::cpu::LLMEFF_ISA {

// Beyond this the reduction would lose digits: the caller takes those elements through the C library, which reduces any
// argument (Payne, Hanek 1983).
inline constexpr float kTrigRange = 32768.0f;

// sin(x + shift·π/2) for |x| ≤ kTrigRange.
LLMEFF_INLINE Vec<float> shifted_sine(Vec<float> x, int32_t shift) {
  const Vec<float> magic = splat(12582912.0f), shifted = x * 0.6366197724f + magic, k = shifted - magic;
  const Vec<float> r = in_float64(
      [](Vec<double> a, Vec<double> n) { return (a - n * 0x1.921fb544p+0) - n * 0x1.0b4611a626331p-34; }, x, k);
  const Mask<float> quadrant = (Mask<float>)shifted + shift;
  const Vec<float> z = r * r;
  Vec<float> s = splat(2.718046534e-6f);
  s = s * z - 1.983930444e-4f;
  s = s * z + 8.333329281e-3f;
  s = s * z - 0.1666666664f;
  const Vec<float> sine = r + r * z * s;
  Vec<float> c = splat(2.443241549e-5f);
  c = c * z - 1.388730989e-3f;
  c = c * z + 4.166664555e-2f;
  const Vec<float> cosine = 1.0f - 0.5f * z + c * z * z;
  const Vec<float> y = (quadrant & 1) != 0 ? cosine : sine;
  return (Vec<float>)((Mask<float>)y ^ ((quadrant & 2) << 30));
}

LLMEFF_INLINE Vec<float> vsin(Vec<float> x) {
  return x == 0.0f ? x : shifted_sine(x, 0);
}
LLMEFF_INLINE Vec<float> vcos(Vec<float> x) {
  return shifted_sine(x, 1);
}
LLMEFF_INLINE Vec<double> vsin(Vec<double> x) {
  return each_lane<double>(x, [](double v) { return __builtin_sin(v); });
}
LLMEFF_INLINE Vec<double> vcos(Vec<double> x) {
  return each_lane<double>(x, [](double v) { return __builtin_cos(v); });
}

// patch(i) for every i with |x[i]| beyond the range, NaN included: few arrays have one.
template <class F>
LLMEFF_INLINE void patch_beyond_trig_range(const float* x, int64_t n, const F& patch) {
  int beyond = 0;
  for (int64_t i = 0; i < n; ++i) beyond |= !(absolute(x[i]) <= kTrigRange);
  if (beyond == 0) return;
  for (int64_t i = 0; i < n; ++i)
    if (!(absolute(x[i]) <= kTrigRange)) patch(i);
}
template <class F>
LLMEFF_INLINE void patch_beyond_trig_range(const double*, int64_t, const F&) {}

}  // namespace llmeff::cpu::LLMEFF_ISA
