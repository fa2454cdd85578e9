// Which of the library's algorithms a product is made by. The library's own guess is off by up to a sixth of the time,
// so that large products are measured when they first come. The clock must not decide on the numbers, though: only
// algorithms count that give the bits of the library's first guess, as those do that add up over k in the same order.
#pragma once

#include "cuda/context.h"
#include "cuda/cublas_lt_interface.h"
#include "llmeff/view.h"

namespace llmeff::cuda::lt {

inline constexpr int kMostCandidates = 8;

// Numbers of an array that the library reads or writes, those in gaps between rows included.
struct Extent {
  DType dtype;
  int64_t count;
};

// A product in the library's names, d = a·b + bias (+ d).
struct Trial {
  Handle library, matmul, a_layout, b_layout, d_layout;
  Extent a, b, d, bias;  // no bias: of 0 numbers
  const void *alpha, *beta;
  void* workspace;
};

// The fastest of the candidates that have the bits of the first on arrays of random numbers: its index. 0 also where
// there is no memory for those arrays. Waits for the GPU; not for a stream that is being captured.
int fastest_alike(Context& cuda, const Functions& f, const Trial& trial, const Heuristic* candidates, int count);

}  // namespace llmeff::cuda::lt
