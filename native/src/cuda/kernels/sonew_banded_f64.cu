// Banded SONew of parameters in float64.
#include "cuda/kernels/sonew_banded.cuh"

namespace llmeff::cuda::sonew {

template struct Banded<double, double>;

}  // namespace llmeff::cuda::sonew
