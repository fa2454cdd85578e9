// Clusters of blocks (capability 9.0) that divide one piece of work and join their results in shared memory, without a
// second kernel. Elsewhere a block does it alone: cluster_size() is 1.
#pragma once

#include "cuda/kernels/early.cuh"

namespace llmeff::cuda {

#ifdef __CUDACC__

__device__ __forceinline__ unsigned cluster_rank() {
#if __CUDA_ARCH__ >= 900
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  return 0;
#endif
}
__device__ __forceinline__ unsigned cluster_size() {
#if __CUDA_ARCH__ >= 900
  unsigned size;
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
#else
  return 1;
#endif
}
__device__ __forceinline__ void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// Element of the same array in the shared memory of another block of the cluster.
template <class W>
__device__ __forceinline__ W of_block(const W* own, unsigned rank) {
#if __CUDA_ARCH__ >= 900
  const W* other;
  asm("mapa.u64 %0, %1, %2;" : "=l"(other) : "l"(own), "r"(rank));
  return *other;
#else
  return *own;
#endif
}

// Clusters of blocks along x, early (early.cuh); grid.x counts clusters.
template <class... P>
void launch_clusters(Context& cuda, void (*kernel)(P...), dim3 grid, dim3 block, const P&... arguments) {
  constexpr unsigned kBlocks = 8;
  divide_alike(reinterpret_cast<const void*>(kernel));
  cudaLaunchAttribute attributes[2] = {early_attribute()};
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = kBlocks, attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  const bool divided = cuda.facts.capability >= 90;
  if (divided) grid.x *= kBlocks;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid, config.blockDim = block, config.stream = cuda.stream;
  config.attrs = attributes, config.numAttrs = divided ? 2 : 0;
  LLMEFF_CUDA(cudaLaunchKernelEx(&config, kernel, arguments...));
}

#endif

}  // namespace llmeff::cuda
