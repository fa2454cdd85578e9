// Sums by target, shared by scatter_add and the gradients that scatter.
#pragma once

#include "cuda/context.h"
#include "llmeff/view.h"

namespace llmeff::cuda {

// out[…, indices[…, i, …], …] += x[…, i, …] along `axis`, equal targets in the order of the positions; float32 sums,
// rounded once. The indices are int32 inside of out's axis; nothing happens when the guard, which may be null, is
// closed.
void add_at(Context& cuda, const View& x, const View& indices, int64_t axis, const View& out, const Guard* guard);

}  // namespace llmeff::cuda
