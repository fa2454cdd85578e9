// Products of few rows, as when decoding: the time is that of reading the weights.
#pragma once

#include "cuda/context.h"
#include "cuda/product.h"

namespace llmeff::cuda {

// Each returns whether it took the product.
bool gemv(Context& cuda, const Product& p);
bool gemv_many(Context& cuda, const In& x, const List<In>& weights, const Out& out);

}  // namespace llmeff::cuda
