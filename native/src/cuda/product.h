// One batch of matrix products, as the library and the engine's own kernel take it.
#pragma once

#include "llmeff/kernels.h"

namespace llmeff::cuda {

struct Product {
  struct Matrix {
    void* data;
    DType dtype;
    int64_t row_stride, column_stride, batch_stride;
  };

  int64_t batch, m, n, k;
  Matrix a, b, out;            // out.column_stride is 1
  const void* bias = nullptr;  // [n]
  DType bias_dtype = DType::kF32;
  Activation activation = Activation::kNone;
  void* pre = nullptr;  // laid out as out
  bool accumulate = false;
};

}  // namespace llmeff::cuda
