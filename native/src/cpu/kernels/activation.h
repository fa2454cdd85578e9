// The activations that elementwise and fused kernels share, on vectors.
#pragma once

#include "llmeff/kernels.h"
#include "vector_erf.h"

namespace llmeff::cpu::LLMEFF_ISA {

template <class T>
LLMEFF_INLINE Vec<T> vrelu(Vec<T> x) {
  return x < T(0) ? Vec<T>{} : x;
}
template <class T>
LLMEFF_INLINE Vec<T> vsilu(Vec<T> x) {
  return x * logistic<T>(x).value;
}
template <class T>
LLMEFF_INLINE Vec<T> vgelu(Vec<T> x) {
  return x * logistic<T>(gelu_argument<T>(x)).value;
}
template <class T>
LLMEFF_INLINE Vec<T> vgelu_erf(Vec<T> x) {
  return x * vnormal_cdf(x);
}

template <class T, class F>
LLMEFF_INLINE void map_row(T* row, int64_t n, const F& f) {
  constexpr int64_t L = kLanes<T>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store<T>(row + i, f(load(row + i)));
  if (i < n) store_part<T>(row + i, f(load_part(row + i, n - i)), n - i);
}

// row = activation(row)
template <class T>
LLMEFF_INLINE void activate_row(Activation activation, T* row, int64_t n) {
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kRelu:
      return map_row(row, n, [](Vec<T> x) { return vrelu<T>(x); });
    case Activation::kGelu:
      return map_row(row, n, [](Vec<T> x) { return vgelu<T>(x); });
    case Activation::kGeluErf:
      return map_row(row, n, [](Vec<T> x) { return vgelu_erf<T>(x); });
    case Activation::kSilu:
      return map_row(row, n, [](Vec<T> x) { return vsilu<T>(x); });
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA
