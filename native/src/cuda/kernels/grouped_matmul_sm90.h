// Products of rows packed by group on Hopper's tensor cores, bf16, as kernels.h says. Both are deterministic.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "llmeff/view.h"

namespace llmeff::cuda {

constexpr int kMostGroupedTerms = 8;

// out = Σ xs[t] · ws[t] of the group. starts, in device memory: starts[e] is the first row of group e, starts[E] that
// behind the last.
struct GroupedMatmulArgs {
  View xs[kMostGroupedTerms], ws[kMostGroupedTerms];  // [A, K], [E, K, N]
  int terms;
  View out;  // [A, N]
  const int64_t* starts;
  unsigned long long* taken;  // in device memory: 0, counts the tiles that blocks have taken
};

// dw = aᵀ · b of the rows of each group.
struct GroupedMatmulGradArgs {
  View a, b;  // [A, M], [A, N]
  View dw;    // [E, M, N], contiguous
  const int64_t* starts;
  unsigned long long* taken;
};

// Whether the copy engine can read and 16-byte stores can write these arrays.
bool grouped_matmul_sm90_supports(const GroupedMatmulArgs& args);
cudaError_t grouped_matmul_sm90(const GroupedMatmulArgs& args, int multiprocessors, cudaStream_t stream);

bool grouped_matmul_grad_sm90_supports(const GroupedMatmulGradArgs& args);
cudaError_t grouped_matmul_grad_sm90(const GroupedMatmulGradArgs& args, int multiprocessors, cudaStream_t stream);

}  // namespace llmeff::cuda
