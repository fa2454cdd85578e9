// Return codes of the CUDA runtime as errors of the engine.
#pragma once

#include <cuda_runtime.h>

#include "llmeff/error.h"

namespace llmeff::cuda {

inline void check(cudaError_t status, const char* what, const char* file, int line) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears what isn't sticky
  if (status == cudaErrorMemoryAllocation)
    fail("ERR_OUT_OF_MEMORY", "[cuda] %s: out of device memory.", what);
  fail("ERR_CUDA", "[cuda] %s failed: %s (%s) at %s:%d.", what, cudaGetErrorString(status), cudaGetErrorName(status),
       file, line);
}

}  // namespace llmeff::cuda

#define LLMEFF_CUDA(call) ::llmeff::cuda::check((call), #call, __FILE__, __LINE__)
// After every <<<…>>>: names the kernel when its launch is refused.
#define LLMEFF_LAUNCHED(kernel) ::llmeff::cuda::check(cudaGetLastError(), "launch of " kernel, __FILE__, __LINE__)
