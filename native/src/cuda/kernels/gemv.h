// Products of few rows, as when decoding: the time is that of reading the weights.
#pragma once

#include "cuda/context.h"
#include "cuda/product.h"

namespace llmeff::cuda {

// Each returns whether it took the product.
bool gemv(Context& cuda, const Product& p);
// `gated`: of two matrices, silu of the first product times the second.
bool gemv_many(Context& cuda, const In& x, const List<In>& weights, const Out& out, bool gated);

}  // namespace llmeff::cuda
