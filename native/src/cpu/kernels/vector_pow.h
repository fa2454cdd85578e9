// a^b of vectors. float32 goes through float64: 2^(b·log2 |a|), where 2^-40 of relative error is enough for a result
// that is rounded to float32 once. float64: the C library lane by lane.
#pragma once

#include "vector_math.h"
#include "vector_wide.h"

namespace llmeff::cpu::LLMEFF_ISA {

// log2 x for x ≥ 0 that came from float32, so never subnormal: x = 2^k m, √½ ≤ m < √2, and with s = (m − 1)/(m + 1)
// log2 m = s·P(s²). 0 gives −∞, ∞ gives ∞, NaN stays.
LLMEFF_INLINE Vec<double> log2_of_float32(Vec<double> x) {
  const Mask<double> k = ((Mask<double>)x - 0x3FE6A09E667F3BCD) >> 52;
  const Vec<double> m = (Vec<double>)((Mask<double>)x - (k << 52)), s = (m - 1.0) / (m + 1.0), z = s * s;
  Vec<double> p = splat(0.2429804427);
  p = p * z + 0.2614389396;
  p = p * z + 0.3206165516;
  p = p * z + 0.4121983997;
  p = p * z + 0.5770780173;
  p = p * z + 0.9617966939;
  p = p * z + 2.8853900817779268;
  const Vec<double> y = __builtin_convertvector(k, Vec<double>) + s * p, inf = splat(__builtin_inf());
  return x > 0.0 ? (x < inf ? y : x) : (x == 0.0 ? -inf : x);
}

// 2^x, 0 far below and ∞ far above what float32 holds.
LLMEFF_INLINE Vec<double> exp2_for_float32(Vec<double> x) {
  const Vec<double> hi = splat(200.0), lo = splat(-200.0), clamped = x > hi ? hi : (x < lo ? lo : x);
  const Vec<double> magic = splat(0x1.8p52), shifted = clamped + magic, r = clamped - (shifted - magic);
  Vec<double> p = splat(1.520193133e-5);
  p = p * r + 1.546929142e-4;
  p = p * r + 1.333392253e-3;
  p = p * r + 9.618027252e-3;
  p = p * r + 5.550410353e-2;
  p = p * r + 0.240226512;
  p = p * r + 0.6931471807;
  p = p * r + 1.0;
  const Mask<double> bits = ((Mask<double>)shifted + 1023) << 52;  // the low bits of `shifted` are the integer
  return x == x ? p * (Vec<double>)bits : x;
}

LLMEFF_INLINE Vec<float> vpow(Vec<float> a, Vec<float> b) {
  return in_float64(
      [](Vec<double> x, Vec<double> y) {
        const Vec<double> size = (Vec<double>)((Mask<double>)x & 0x7FFFFFFFFFFFFFFF), inf = splat(__builtin_inf());
        const Vec<double> power = exp2_for_float32(y * log2_of_float32(size));
        // What comes from float32 and is at least 2^25 is even; so is 0, which stands for it here.
        const Vec<double> magic = splat(0x1.8p52), bounded = vabs<double>(y) < 0x1p25 ? y : Vec<double>{};
        const Vec<double> whole = (bounded + magic) - magic, half = (bounded * 0.5 + magic) - magic;
        const Mask<double> is_whole = whole == bounded, is_odd = is_whole && half + half != bounded;
        const Vec<double> signed_power =
            (Vec<double>)((Mask<double>)power ^ (is_odd & ((Mask<double>)x & ~0x7FFFFFFFFFFFFFFF)));
        const Vec<double> z = x < 0.0 && size < inf && !is_whole ? splat(__builtin_nan("")) : signed_power;
        // 1^b, a^0 and (−1)^±∞ are 1 whatever the other is.
        return x == 1.0 || y == 0.0 || (size == 1.0 && vabs<double>(y) == inf) ? splat(1.0) : z;
      },
      a, b);
}
LLMEFF_INLINE Vec<double> vpow(Vec<double> a, Vec<double> b) {
  double x[kLanes<double>], y[kLanes<double>];
  store(x, a);
  store(y, b);
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = y[i] == 2 ? x[i] * x[i] : __builtin_pow(x[i], y[i]);
  return load(x);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
