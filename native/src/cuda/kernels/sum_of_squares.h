// The sum of the squares of each of a list of arrays.
#pragma once

#include "cuda/context.h"
#include "llmeff/kernels.h"

namespace llmeff::cuda {

// sums[i] = Σ (scale · xs[i])², in float64, for arrays of one dtype; on the stream. scale [] may be absent.
void sums_of_squares(Context& cuda, const List<In>& xs, const In& scale, double* sums);

}  // namespace llmeff::cuda
