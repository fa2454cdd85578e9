// float32 functions that are simplest to get right in float64.
#pragma once

#include "simd.h"

namespace llmeff::cpu::LLMEFF_ISA {

// f, a function of float64 vectors, of float32 vectors: half of the lanes at a time, rounded once at the end.
template <class F, class... X>
LLMEFF_INLINE Vec<float> in_float64(const F& f, X... x) {
  typedef float Half __attribute__((vector_size(LLMEFF_VECTOR_BYTES / 2)));
  const auto half = [](const Vec<float>& v, int which) {
    Half h;
    std::memcpy(&h, reinterpret_cast<const char*>(&v) + which * static_cast<int>(sizeof h), sizeof h);
    return __builtin_convertvector(h, Vec<double>);
  };
  Half halves[2];
  for (int i = 0; i < 2; ++i) halves[i] = __builtin_convertvector(f(half(x, i)...), Half);
  Vec<float> y;
  std::memcpy(&y, halves, sizeof y);
  return y;
}

}  // namespace llmeff::cpu::LLMEFF_ISA
