// Small kernels that follow one another. Each lasts a microsecond or two, about as long as the GPU takes from the end
// of one to the beginning of the next. So they begin early (programmatic dependent launch, capability 9.0): a kernel
// lets the next one begin when all its blocks have, and that waits for it only where it needs what it wrote. Until then
// it may have come from memory what nobody is writing, or, as a hint to the cache, anything.
#pragma once

#include <unordered_set>

#include "cuda/check.h"
#include "cuda/context.h"

namespace llmeff::cuda {

#ifdef __CUDACC__

// By all threads of a kernel that is launched early, at its beginning.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// By all threads, before they read what an earlier kernel may have written, write anything or end.
__device__ __forceinline__ void await_earlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Asks for the 32 bytes around an address, which must be of the device's memory, and waits for nothing.
__device__ __forceinline__ void prefetch(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

inline cudaLaunchAttribute early_attribute() {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  return early;
}

// Multiprocessors divide their memory between cache and shared memory anew only when they are idle: kernels that are to
// run side by side want it divided alike.
inline void divide_alike(const void* kernel) {
  static thread_local std::unordered_set<const void*> done;  // a thread launches on one GPU
  if (!done.insert(kernel).second) return;
  LLMEFF_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
}

// For kernels that call let_next_begin and await_earlier. Those of many blocks gain nothing and begin in order.
template <class... P>
void launch_early(Context& cuda, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, const P&... arguments) {
  divide_alike(reinterpret_cast<const void*>(kernel));
  cudaLaunchAttribute early = early_attribute();
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared, config.stream = cuda.stream;
  config.attrs = &early;
  config.numAttrs = cuda.facts.capability >= 90 && blocks <= uint64_t{64} * cuda.facts.multiprocessors ? 1 : 0;
  LLMEFF_CUDA(cudaLaunchKernelEx(&config, kernel, arguments...));
}

#endif

}  // namespace llmeff::cuda
