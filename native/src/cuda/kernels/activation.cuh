// The activations that fused kernels share.
#pragma once

#include "cuda/kernels/functions.cuh"
#include "llmeff/kernels.h"

namespace llmeff::cuda {

// In the element-wise functions' own words, so that a fused activation has their bits.
template <class W>
__device__ __forceinline__ W activate(Activation activation, W x) {
  switch (activation) {
    case Activation::kRelu:
      return relu(x);
    case Activation::kGelu:
      return gelu(x);
    case Activation::kGeluErf:
      return gelu_erf(x);
    case Activation::kSilu:
      return silu(x);
    default:
      return x;
  }
}

}  // namespace llmeff::cuda
