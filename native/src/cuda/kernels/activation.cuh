// The activations that fused kernels share.
#pragma once

#include "llmeff/kernels.h"

namespace llmeff::cuda {

// x · σ(z), which is x·½(1 + tanh(z/2)); for large −z it is 0, never NaN.
__device__ __forceinline__ float logistic(float z) {
  return 1.0f / (1.0f + expf(-z));
}
__device__ __forceinline__ double logistic(double z) {
  return 1.0 / (1.0 + exp(-z));
}

template <class W>
__device__ __forceinline__ W activate(Activation activation, W x) {
  switch (activation) {
    case Activation::kRelu:
      return x < W(0) ? W(0) : x;
    case Activation::kGelu:  // its tanh form: ½(1 + tanh(u)) = σ(2u)
      return x * logistic(W(1.5957691216057308) * (x + W(0.044715) * x * x * x));
    case Activation::kGeluErf:
      return x * W(0.5) * erfc(x * W(-0.7071067811865475));
    case Activation::kSilu:
      return x * logistic(x);
    default:
      return x;
  }
}

}  // namespace llmeff::cuda
