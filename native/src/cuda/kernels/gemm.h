// Matrix products for kernels that need them inside.
#pragma once

#include "cuda/context.h"
#include "llmeff/kernels.h"

namespace llmeff::cuda {

struct GemmOptions {
  const In* bias = nullptr;  // [N], contiguous
  Activation activation = Activation::kNone;
  const Out* pre = nullptr;  // receives what the activation is applied to
  bool accumulate = false;   // out += instead of out =; not with an activation
};

// out[…, M, N] = activation(a[…, M, K] · b[…, K, N] + bias), as Kernels::matmul; leading axes of a and b may be
// broadcast (stride 0) or, of b, absent.
void gemm(Context& cuda, const View& a, const View& b, const View& out, const GemmOptions& options = {});

}  // namespace llmeff::cuda
