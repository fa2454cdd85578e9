// What the timing programs share: the CUDA kernels on the first GPU, memory full of random numbers, and the time of a
// piece of work (median of repetitions between events).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/kernels/cuda_kernels.h"
#include "../test/row_major.h"

namespace llmeff::bench {

class Gpu {
 public:
  Gpu() {
    cudaDeviceProp properties;
    LLMEFF_CUDA(cudaGetDeviceProperties(&properties, 0));
    LLMEFF_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    context = new cuda::Context(cuda::facts_of(0), stream);
    kernels = new cuda::CudaKernels(*context);
    std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  }

  // Seconds a call, with several in a row so that their launches overlap.
  template <class F>
  double time(F&& work, int repetitions = 10, int calls = 1) {
    cudaEvent_t begin, end;
    LLMEFF_CUDA(cudaEventCreate(&begin));
    LLMEFF_CUDA(cudaEventCreate(&end));
    std::vector<float> times;
    for (int i = 0; i < repetitions + 3; ++i) {
      std::vector<FailurePointer> checks;
      LLMEFF_CUDA(cudaEventRecord(begin, stream));
      for (int call = 0; call < calls; ++call) {
        context->begin("bench", 1, {});
        work();
        checks.push_back(context->end());
      }
      LLMEFF_CUDA(cudaEventRecord(end, stream));
      LLMEFF_CUDA(cudaEventSynchronize(end));
      for (const FailurePointer& check : checks)
        if (check != nullptr) context->settle(*check);
      float ms = 0;
      LLMEFF_CUDA(cudaEventElapsedTime(&ms, begin, end));
      if (i >= 3) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2] * 1e-3 / calls;
  }

  // Contiguous, with random numbers in [low, high).
  View random(DType dtype, const std::vector<int64_t>& shape, float low = -1, float high = 1);
  View integers(const std::vector<int64_t>& shape, int high);

  cudaStream_t stream;
  cuda::Context* context;
  cuda::CudaKernels* kernels;
};

// splitmix64 of the position
__device__ inline uint64_t bits_at(uint64_t i) {
  uint64_t z = i * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}
inline __device__ void put(float* at, float x) {
  *at = x;
}
inline __device__ void put(double* at, float x) {
  *at = x;
}
inline __device__ void put(__nv_bfloat16* at, float x) {
  *at = __float2bfloat16_rn(x);
}
inline __device__ void put(__half* at, float x) {
  *at = __float2half_rn(x);
}

template <class T>
__global__ void random_kernel(T* x, int64_t count, uint64_t seed, float low, float high) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += gridDim.x * 256)
    put(x + i, low + (high - low) * static_cast<float>(bits_at(static_cast<uint64_t>(i) + seed) >> 40) * 0x1p-24f);
}
static __global__ void integers_kernel(int32_t* x, int64_t count, uint64_t seed, int high) {
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += gridDim.x * 256)
    x[i] = static_cast<int32_t>(bits_at(static_cast<uint64_t>(i) + seed) % static_cast<uint64_t>(high));
}

inline uint64_t next_seed() {
  static uint64_t seed = 1;
  return seed += uint64_t{1} << 40;
}

inline View Gpu::random(DType dtype, const std::vector<int64_t>& shape, float low, float high) {
  View v = row_major(nullptr, dtype, shape);
  LLMEFF_CUDA(cudaMalloc(&v.data, static_cast<size_t>(v.size() * item_size(dtype))));
  const auto fill = [&]<class T>(T*) {
    random_kernel<<<2048, 256, 0, stream>>>(v.as<T>(), v.size(), next_seed(), low, high);
    LLMEFF_LAUNCHED("random_kernel");
  };
  if (dtype == DType::kF64) fill(static_cast<double*>(nullptr));
  if (dtype == DType::kF32) fill(static_cast<float*>(nullptr));
  if (dtype == DType::kBF16) fill(static_cast<__nv_bfloat16*>(nullptr));
  if (dtype == DType::kF16) fill(static_cast<__half*>(nullptr));
  return v;
}

inline View Gpu::integers(const std::vector<int64_t>& shape, int high) {
  View v = row_major(nullptr, DType::kI32, shape);
  LLMEFF_CUDA(cudaMalloc(&v.data, static_cast<size_t>(v.size() * 4)));
  integers_kernel<<<2048, 256, 0, stream>>>(v.as<int32_t>(), v.size(), next_seed(), high);
  LLMEFF_LAUNCHED("integers_kernel");
  return v;
}

}  // namespace llmeff::bench
