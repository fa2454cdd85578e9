// bfloat16 and float16, the formats that arrays may be stored in: float32 is what is computed with. Widening is exact,
// narrowing rounds to the nearest, ties to even. Plain integer code without branches, so that loops over it become
// vector code on every instruction set.
#pragma once

#include "simd.h"

namespace llmeff::cpu::LLMEFF_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

LLMEFF_INLINE uint32_t bits_of(float x) {
  return __builtin_bit_cast(uint32_t, x);
}
LLMEFF_INLINE float float_of(uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

LLMEFF_INLINE float widen(BFloat16 x) {
  return float_of(static_cast<uint32_t>(x.bits) << 16);
}
// The exponent moves by 112, which a multiplication does for subnormal numbers too; infinity and NaN keep all exponent
// bits set.
LLMEFF_INLINE float widen(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, magnitude = static_cast<uint32_t>(x.bits & 0x7FFF)
                                                                                  << 13;
  const uint32_t scaled = bits_of(float_of(magnitude) * 0x1p112f);
  return float_of(scaled | (magnitude >= 0x0F800000u ? 0x7F800000u : 0u) | sign);
}

LLMEFF_INLINE void narrow(float x, BFloat16* out) {
  const uint32_t bits = bits_of(x), rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  out->bits = static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? bits >> 16 | 0x40 : rounded);
}
LLMEFF_INLINE void narrow(float x, Float16* out) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
  // Below 2^-14 adding 0.5 leaves the subnormal number, rounded, in the low bits; above, the carry may reach infinity.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3F000000;
  const uint32_t normal = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
  const uint32_t special = magnitude > 0x7F800000 ? 0x7E00 : 0x7C00;
  const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
  out->bits = static_cast<uint16_t>((magnitude >= 0x47800000 ? special : finite) | sign);
}

// kLanes<float> of them, widened.
typedef uint16_t HalfLanes __attribute__((vector_size(LLMEFF_VECTOR_BYTES / 2)));
LLMEFF_INLINE WordLanes load_words(const void* p) {
  HalfLanes halves;
  std::memcpy(&halves, p, sizeof halves);
  return __builtin_convertvector(halves, WordLanes);
}
LLMEFF_INLINE Vec<float> load(const BFloat16* p) {
  return (Vec<float>)(load_words(p) << 16);
}
LLMEFF_INLINE Vec<float> load(const Float16* p) {
  const WordLanes words = load_words(p), magnitude = (words & 0x7FFF) << 13;
  const WordLanes scaled = (WordLanes)((Vec<float>)magnitude * 0x1p112f);
  return (Vec<float>)(scaled | (magnitude >= 0x0F800000u ? WordLanes{} + 0x7F800000u : WordLanes{}) |
                      (words & 0x8000) << 16);
}
// The first n of them (n < kLanes<float>), and zeros.
template <class H>
LLMEFF_INLINE Vec<float> load_part_widened(const H* p, int64_t n) {
  Vec<float> v = {};
  for (int64_t i = 0; i < n; ++i) v[i] = widen(p[i]);
  return v;
}
LLMEFF_INLINE Vec<float> load_part(const BFloat16* p, int64_t n) {
  return load_part_widened(p, n);
}
LLMEFF_INLINE Vec<float> load_part(const Float16* p, int64_t n) {
  return load_part_widened(p, n);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
