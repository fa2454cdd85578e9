// Products of few rows, as when decoding: the time is that of reading the weights.
#pragma once

#include "cuda/context.h"
#include "cuda/product.h"

namespace llmeff::cuda {

// What may be done with the products on the way.
struct FewRows {
  View norm = {};  // x is normed first, by these weights
  double norm_offset = 0, eps = 0;
  View residual = {};  // is added
  bool gated = false;  // of two matrices: silu of the first product times the second
};

// Each returns whether it took the product.
bool gemv(Context& cuda, const Product& p);
bool gemv_many(Context& cuda, const View& x, const FewRows& given, const List<In>& weights, const View& out);

}  // namespace llmeff::cuda
