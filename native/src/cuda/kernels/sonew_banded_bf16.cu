// Banded SONew of parameters in float32, with state in bfloat16.
#include "cuda/kernels/sonew_banded.cuh"

namespace llmeff::cuda::sonew {

template struct Banded<float, bf16>;

}  // namespace llmeff::cuda::sonew
