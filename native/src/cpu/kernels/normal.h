// Standard normal numbers of random words by Box and Muller's transformation (philox.h says of which words), in float64
// vectors: two words make a pair √(−2 ln u1) · (cos 2πu2, sin 2πu2). What comes in is so tame, u1 a normal number below
// 1 and u2 in (0, 1), that logarithm, sine and cosine are a power series each, good to 2 or 3 units of the last place.
#pragma once

#include "philox.h"
#include "vector_math.h"

namespace llmeff::cpu::LLMEFF_ISA {

// (w + ½) · 2^-32 of words in the low halves of the lanes.
LLMEFF_INLINE Vec<double> open_unit(Mask<double> w) {
  return ((Vec<double>)(w | 0x4330000000000000) - 0x1p52 + 0.5) * 0x1p-32;
}

// ln x = k·ln 2 + 2 artanh s with x = 2^k (1 + f), √½ ≤ 1 + f < √2, s = f / (2 + f), |s| < 0.172; k·ln 2 in two parts,
// of which the first is exact.
LLMEFF_INLINE Vec<double> log_of_unit(Vec<double> x) {
  const Mask<double> above = (Mask<double>)x - 0x3FE6A09E667F3BCD, exponent = above >> 52;
  const Vec<double> f = (Vec<double>)((Mask<double>)x - (exponent << 52)) - 1.0,
                    k = (Vec<double>)(exponent + 0x4338000000000000) - 0x1.8p52;
  const Vec<double> s = f / (2.0 + f), z = s * s;
  Vec<double> series = splat(1.0 / 21);
  series = series * z + 1.0 / 19;
  series = series * z + 1.0 / 17;
  series = series * z + 1.0 / 15;
  series = series * z + 1.0 / 13;
  series = series * z + 1.0 / 11;
  series = series * z + 1.0 / 9;
  series = series * z + 1.0 / 7;
  series = series * z + 1.0 / 5;
  series = series * z + 1.0 / 3;
  // 2 artanh s = f − s·(f − 2 z·series): f is exact.
  return k * 0x1.62e42fee00000p-1 + (f - (s * (f - 2.0 * z * series) - k * 0x1.a39ef35793c76p-33));
}

struct CosineAndSine {
  Vec<double> cosine, sine;
};
// Of 2π·turns, 0 < turns < 1: the nearest quarter and what is beyond it, r quarters, |r| ≤ ½, exactly.
LLMEFF_INLINE CosineAndSine cosine_and_sine(Vec<double> turns) {
  const Vec<double> shifted = turns * 4.0 + 0x1.8p52, r = turns * 4.0 - (shifted - 0x1.8p52);
  const Mask<double> quarter = (Mask<double>)shifted;
  const Vec<double> x = r * 0x1.921fb54442d18p+0, z = x * x;
  Vec<double> sine = 1.0 - z * (1.0 / 272), cosine = 1.0 - z * (1.0 / 240);
  sine = 1.0 - sine * z * (1.0 / 210), cosine = 1.0 - cosine * z * (1.0 / 182);
  sine = 1.0 - sine * z * (1.0 / 156), cosine = 1.0 - cosine * z * (1.0 / 132);
  sine = 1.0 - sine * z * (1.0 / 110), cosine = 1.0 - cosine * z * (1.0 / 90);
  sine = 1.0 - sine * z * (1.0 / 72), cosine = 1.0 - cosine * z * (1.0 / 56);
  sine = 1.0 - sine * z * (1.0 / 42), cosine = 1.0 - cosine * z * (1.0 / 30);
  sine = 1.0 - sine * z * (1.0 / 20), cosine = 1.0 - cosine * z * (1.0 / 12);
  sine = 1.0 - sine * z * (1.0 / 6), cosine = 1.0 - cosine * z * (1.0 / 2);
  sine *= x;
  const Mask<double> odd = (quarter & 1) != 0;
  const Vec<double> along = odd ? sine : cosine, across = odd ? cosine : sine;
  return {(Vec<double>)((Mask<double>)along ^ ((quarter + 1) & 2) << 62),
          (Vec<double>)((Mask<double>)across ^ (quarter & 2) << 62)};
}

template <class T>
LLMEFF_INLINE void make_normal(const uint32_t* words, T* out) {
  constexpr int64_t kPairs = kLanes<double>;
  for (int64_t i = 0; i < kWords; i += 2 * kPairs) {
    Mask<double> pairs;
    std::memcpy(&pairs, words + i, sizeof pairs);
    const Vec<double> log = log_of_unit(open_unit(pairs & 0xFFFFFFFF));
    const CosineAndSine made = cosine_and_sine(open_unit(pairs >> 32 & 0xFFFFFFFF));
    const Vec<double> radius = vsqrt<double>(-2.0 * log);
    double cosines[kPairs], sines[kPairs];
    store<double>(cosines, radius * made.cosine);
    store<double>(sines, radius * made.sine);
    for (int64_t j = 0; j < kPairs; ++j) {
      out[i + 2 * j] = static_cast<T>(cosines[j]);
      out[i + 2 * j + 1] = static_cast<T>(sines[j]);
    }
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA
