// The activations that element-wise and fused kernels share, on vectors.
#pragma once

#include "llmeff/kernels.h"
#include "strided.h"
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

// row = activation(row)
template <class T>
LLMEFF_INLINE void activate_row(Activation activation, T* row, int64_t n) {
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kRelu:
      return map_vectors(
          n, [](Vec<T> x) { return vrelu<T>(x); }, row, row);
    case Activation::kGelu:
      return map_vectors(
          n, [](Vec<T> x) { return vgelu<T>(x); }, row, row);
    case Activation::kGeluErf:
      return map_vectors(
          n, [](Vec<T> x) { return vgelu_erf<T>(x); }, row, row);
    case Activation::kSilu:
      return map_vectors(
          n, [](Vec<T> x) { return vsilu<T>(x); }, row, row);
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA
