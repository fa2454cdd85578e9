// Clusters of blocks (capability 9.0) that divide one piece of work and join their results in shared memory, without a
// second kernel. Elsewhere a block does it alone: cluster_size() is 1.
#pragma once

#include "cuda/kernels/early.cuh"

namespace llmeff::cuda {

constexpr unsigned kMostBlocks = 8;  // of a cluster

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
// A barrier of all threads of a cluster, in two halves with other work between them. It orders nothing but what
// expect_sent() makes: what is ordered by it otherwise waits for all memory of the GPU. Threads needn't be converged.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait;" ::: "memory");
#endif
}

// A barrier of all threads of a cluster that orders their shared memory: afterwards each block may read that of others.
__device__ __forceinline__ void cluster_synchronize() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#else
  __syncthreads();
#endif
}
// What lies at the same place in the shared memory of another block, or of this one; that must not end before.
template <class V>
__device__ __forceinline__ V load_from(const V* place, unsigned rank) {
#if __CUDA_ARCH__ >= 900
  static_assert(sizeof(V) == 4 || sizeof(V) == 8);
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(place));
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(rank));
  if constexpr (sizeof(V) == 4) {
    uint32_t bits;
    asm volatile("ld.shared::cluster.b32 %0, [%1];" : "=r"(bits) : "r"(there) : "memory");
    return *reinterpret_cast<const V*>(&bits);
  } else {
    uint64_t bits;
    asm volatile("ld.shared::cluster.b64 %0, [%1];" : "=l"(bits) : "r"(there) : "memory");
    return *reinterpret_cast<const V*>(&bits);
  }
#else
  return *place;
#endif
}

// What the blocks of a cluster send to one of them. By one thread of that one, before cluster_arrive(); it must not end
// before await_sent(), while the others may.
__device__ __forceinline__ void expect_sent(uint64_t* barrier, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile(
      "mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;\n"
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address),
      "r"(bytes)
      : "memory");
#endif
}
// After cluster_wait(): to the same place in the shared memory of another block, or of this one.
template <class W>
__device__ __forceinline__ void send(W* place, W value, uint64_t* barrier, unsigned rank) {
#if __CUDA_ARCH__ >= 900
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(place)),
             counted = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  if constexpr (sizeof(W) == 4)
    asm volatile(
        "{\n.reg .b32 to, at;\nmapa.shared::cluster.u32 to, %0, %3;\nmapa.shared::cluster.u32 at, %2, %3;\n"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [to], %1, [at];\n}" ::"r"(at),
        "r"(*reinterpret_cast<const uint32_t*>(&value)), "r"(counted), "r"(rank)
        : "memory");
  else
    asm volatile(
        "{\n.reg .b32 to, at;\nmapa.shared::cluster.u32 to, %0, %3;\nmapa.shared::cluster.u32 at, %2, %3;\n"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [to], %1, [at];\n}" ::"r"(at),
        "l"(*reinterpret_cast<const uint64_t*>(&value)), "r"(counted), "r"(rank)
        : "memory");
#else
  *place = value;
#endif
}
// By all threads of the block that it was sent to: it is there.
__device__ __forceinline__ void await_sent(uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  uint32_t done = 0;
  while (done == 0)
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(address)
                 : "memory");
#else
  __syncthreads();
#endif
}

// Clusters of so many blocks along x, early (early.cuh); grid.x counts clusters.
template <class... P>
void launch_clusters(Context& cuda, unsigned blocks, void (*kernel)(P...), dim3 grid, dim3 block,
                     const P&... arguments) {
  divide_alike(reinterpret_cast<const void*>(kernel));
  cudaLaunchAttribute attributes[2] = {early_attribute()};
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = blocks, attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  const bool divided = cuda.facts.capability >= 90;
  if (divided) grid.x *= blocks;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid, config.blockDim = block, config.stream = cuda.stream;
  config.attrs = attributes, config.numAttrs = divided ? 2 : 0;
  LLMEFF_CUDA(cudaLaunchKernelEx(&config, kernel, arguments...));
}

#endif

}  // namespace llmeff::cuda
