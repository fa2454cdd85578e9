// Banded SONew of parameters in float32.
#include "cuda/kernels/sonew_banded.cuh"

namespace llmeff::cuda::sonew {

template struct Banded<float, float>;

}  // namespace llmeff::cuda::sonew
