// Pinned host memory for transfers, which the GPU reaches over the bus; kept for reuse.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/check.h"

namespace llmeff::cuda {

class PinnedMemory {
 public:
  // Goes back to the cache with its last owner, who makes sure that the GPU is done with it. Any thread of a process
  // whose current device is this one.
  std::shared_ptr<void> take(size_t bytes) {
    const int size_class = std::bit_width(bytes < kSmallest ? kSmallest - 1 : bytes - 1);
    void* data = nullptr;
    {
      std::lock_guard lock(mutex_);
      if (auto& free = free_[size_class]; !free.empty()) {
        data = free.back();
        free.pop_back();
        cached_ -= size_t{1} << size_class;
      }
    }
    if (data == nullptr)
      LLMEFF_CUDA(cudaHostAlloc(&data, size_t{1} << size_class, cudaHostAllocPortable | cudaHostAllocMapped));
    return {data, [this, size_class](void* returned) { give(returned, size_class); }};
  }

 private:
  static constexpr size_t kSmallest = 256;
  static constexpr size_t kKept = size_t{256} << 20;

  void give(void* data, int size_class) {
    {
      std::lock_guard lock(mutex_);
      const size_t bytes = size_t{1} << size_class;
      if (cached_ + bytes <= kKept) {
        free_[size_class].push_back(data);
        cached_ += bytes;
        return;
      }
    }
    cudaFreeHost(data);
  }

  std::mutex mutex_;
  std::vector<void*> free_[64];
  size_t cached_ = 0;
};

}  // namespace llmeff::cuda
