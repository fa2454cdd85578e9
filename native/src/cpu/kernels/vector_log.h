// Logarithms, expm1 and powers of a vector. float32 by polynomials, float64 by the C library lane by lane.
//
// log x = k·ln 2 + log(1 + f) with x = 2^k (1 + f), √½ ≤ 1 + f < √2, and log(1 + f) = f − f²/2 + f³ P(f), P minimax of
// degree 8 (relative error 2^-30). ln 2 is added in two parts, of which k times the first is exact.
#pragma once

#include "vector_math.h"

namespace llmeff::cpu::LLMEFF_ISA {

// k·ln 2 + log(1 + f).
LLMEFF_INLINE Vec<float> log_of_parts(Vec<float> k, Vec<float> f) {
  const Vec<float> z = f * f;
  Vec<float> p = splat(6.746625544e-2f);
  p = p * f - 0.1167563159f;
  p = p * f + 0.1188815317f;
  p = p * f - 0.1240558984f;
  p = p * f + 0.1421955402f;
  p = p * f - 0.1666799605f;
  p = p * f + 0.2000211859f;
  p = p * f - 0.2500000959f;
  p = p * f + 0.333333126f;
  Vec<float> y = p * f * z + k * -2.12194440e-4f;
  y = y - 0.5f * z;
  return (f + y) + k * 0.693359375f;
}

// Bits of floats as numbers that wrap: what comes of those of x ≤ 0 and NaN means nothing and is thrown away.
typedef uint32_t FloatBits __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));

// The k of a positive normal x.
LLMEFF_INLINE Mask<float> log_exponent(Vec<float> x) {
  return (Mask<float>)((FloatBits)x - 0x3F3504F3u) >> 23;
}

// 1 + f of a positive normal x.
LLMEFF_INLINE Vec<float> log_fraction(Vec<float> x, Mask<float> k) {
  return (Vec<float>)((FloatBits)x - ((FloatBits)k << 23));
}

// What log gives at the ends: log x where 0 < x < ∞, else −∞ at 0, NaN below, x itself for ∞ and NaN.
LLMEFF_INLINE Vec<float> with_log_ends(Vec<float> x, Vec<float> log) {
  const Vec<float> inf = splat(__builtin_inff());
  const Vec<float> y = x > 0.0f ? log : (x == 0.0f ? -inf : splat(__builtin_nanf("")));
  return x < inf ? y : x;
}

LLMEFF_INLINE Vec<float> vlog(Vec<float> x) {
  const Vec<float> normal = x < 0x1p-126f ? x * 0x1p23f : x;
  const Mask<float> k = log_exponent(normal);
  const Vec<float> f = log_fraction(normal, k) - 1.0f;
  const Vec<float> exponent = __builtin_convertvector(k, Vec<float>);
  return with_log_ends(x, log_of_parts(x < 0x1p-126f ? exponent - 23.0f : exponent, f));
}
LLMEFF_INLINE Vec<double> vlog(Vec<double> x) {
  return each_lane<double>(x, [](double v) { return __builtin_log(v); });
}

// log(1 + x): what rounding takes from u = 1 + x goes into f.
LLMEFF_INLINE Vec<float> vlog1p(Vec<float> x) {
  const Vec<float> u = 1.0f + x, lost = x - (u - 1.0f);
  const Mask<float> k = log_exponent(u), near = k < 60 ? k : 60;
  const Vec<float> f = (log_fraction(u, k) - 1.0f) + lost * power_of_two(-near);
  const Vec<float> y = with_log_ends(u, log_of_parts(__builtin_convertvector(k, Vec<float>), f));
  return x == 0.0f ? x : y;
}
LLMEFF_INLINE Vec<double> vlog1p(Vec<double> x) {
  return each_lane<double>(x, [](double v) { return __builtin_log1p(v); });
}

// e^x − 1 = 2^k (e^r − 1) + (2^k − 1).
LLMEFF_INLINE Vec<float> vexpm1(Vec<float> x) {
  const Vec<float> hi = splat(88.72283f), lo = splat(-18.0f);
  const Vec<float> clamped = x > hi ? hi : (x < lo ? lo : x);
  const Vec<float> magic = splat(12582912.0f), shifted = clamped * 1.442695041f + magic, k = shifted - magic;
  Vec<float> r = clamped - k * 0.693145752f;
  r = r - k * 1.42860677e-6f;
  Vec<float> q = splat(1.97902182e-4f);
  q = q * r + 1.394475828e-3f;
  q = q * r + 8.33349774e-3f;
  q = q * r + 4.166629364e-2f;
  q = q * r + 0.1666666586f;
  q = q * r + 0.5000000068f;
  const Vec<float> p = r + r * r * q;
  // 2^128 is not a number of float32: half of everything, doubled.
  const Vec<float> half = power_of_two((Mask<float>)shifted - 0x4B400000 - 1);
  Vec<float> y = (p * half + (half - 0.5f)) * 2.0f;
  y = x > hi ? splat(__builtin_inff()) : y;
  return x == 0.0f || x != x ? x : y;
}
LLMEFF_INLINE Vec<double> vexpm1(Vec<double> x) {
  return each_lane<double>(x, [](double v) { return __builtin_expm1(v); });
}

// log(e^a + e^b) around the larger; the difference of two equal infinities counts as 0.
template <class T>
LLMEFF_INLINE Vec<T> vlog_add_exp(Vec<T> a, Vec<T> b) {
  const Vec<T> top = nan_max(a, b), gap = a == b ? Vec<T>{} : vabs<T>(a - b);
  return top + vlog1p(vexp_full(-gap));
}

// log(1 + e^x)
template <class T>
LLMEFF_INLINE Vec<T> vsoftplus(Vec<T> x) {
  return (x < T(0) ? Vec<T>{} : x) + vlog1p(vexp_full(-vabs<T>(x)));
}

}  // namespace llmeff::cpu::LLMEFF_ISA
