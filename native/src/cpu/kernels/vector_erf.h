// The error function and the normal distribution of a vector. float32: one function carries the tails,
//   erfc(a) = e^(−a²) · t · P(t),  t = 1 / (1 + a/2),  a ≥ 0   (P minimax of degree 10, relative error 2^-28).
// float64: the C library lane by lane.
#pragma once

#include "vector_log.h"

namespace llmeff::cpu::LLMEFF_ISA {

// e^(−rate·x²), rate a power of two. The square of a long x would lose digits that count absolutely in the exponent:
// the square of its leading 12 bits is exact, the rest goes into a second, small exponent, whose e^x − 1 adds half a
// unit only.
LLMEFF_INLINE Vec<float> vgaussian(Vec<float> x, float rate) {
  const Vec<float> leading = (Vec<float>)((Mask<float>)x & ~0xFFF), rest = (x - leading) * (x + leading);
  const Vec<float> main = vexp_full(leading * leading * -rate), y = main + main * vexpm1(rest * -rate);
  return vabs<float>(x) < 0x1p32f ? y : (x == x ? Vec<float>{} : x);
}
LLMEFF_INLINE Vec<double> vgaussian(Vec<double> x, double rate) {
  return vexp(x * x * -rate);
}

// erfc(a) for a = x·√rate ≥ 0, where tail_rate = √rate / 2.
LLMEFF_INLINE Vec<float> vtail(Vec<float> x, float rate, float tail_rate) {
  const Vec<float> t = 1.0f / (1.0f + x * tail_rate), s = t - 0.5f;
  Vec<float> p = splat(3.557361542e-2f);
  p = p * s - 1.201632306e-2f;
  p = p * s - 7.58477899e-2f;
  p = p * s + 5.325198451e-2f;
  p = p * s + 9.800336389e-2f;
  p = p * s - 0.1036140601f;
  p = p * s - 0.1720457768f;
  p = p * s + 0.145767135f;
  p = p * s + 0.5589435416f;
  p = p * s + 0.6871606971f;
  p = p * s + 0.5107913543f;
  return vgaussian(x, rate) * (t * p);
}

LLMEFF_INLINE Vec<float> verf(Vec<float> x) {
  const Vec<float> a = vabs<float>(x), z = x * x;
  Vec<float> p = splat(7.858046707e-5f);
  p = p * z - 8.011565616e-4f;
  p = p * z + 5.188500945e-3f;
  p = p * z - 2.685391718e-2f;
  p = p * z + 0.1128358827f;
  p = p * z - 0.3761262622f;
  // 2/√π = 1 + 0.128…: the product with x then rounds only its small part.
  const Vec<float> near = x + x * (p * z + 0.128379166f), far = 1.0f - vtail(a, 1.0f, 0.5f);
  return a < 1.0f ? near : (x < 0.0f ? -far : far);
}
LLMEFF_INLINE Vec<double> verf(Vec<double> x) {
  return each_lane<double>(x, [](double v) { return __builtin_erf(v); });
}

// Φ(x), the normal distribution function: exact to a few roundings in the lower tail too.
LLMEFF_INLINE Vec<float> vnormal_cdf(Vec<float> x) {
  const Vec<float> tail = 0.5f * vtail(vabs<float>(x), 0.5f, 0.3535533906f);
  return x < 0.0f ? tail : 1.0f - tail;
}
LLMEFF_INLINE Vec<double> vnormal_cdf(Vec<double> x) {
  return each_lane<double>(x, [](double v) { return 0.5 * __builtin_erfc(-0.70710678118654752 * v); });
}

// e^(−x²/2) / √(2π)
template <class T>
LLMEFF_INLINE Vec<T> vnormal_density(Vec<T> x) {
  return vgaussian(x, T(0.5)) * T(0.39894228040143268);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
