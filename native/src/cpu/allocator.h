// Caching allocator: blocks come from the system once and are reused by size class, so that a training step reaches a
// steady state without asking the system for memory.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

#include "llmeff/device.h"

namespace llmeff::cpu {

class CachingAllocator {
 public:
  // A 64-byte aligned block; `capacity` receives its size class. Null when the system has no more.
  void* allocate(size_t bytes, size_t& capacity);
  void release(void* data, size_t capacity);
  void empty_cache();
  void reset_peak();
  MemoryUse use() const;

 private:
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  size_t live_ = 0, peak_ = 0, cached_ = 0, system_allocations_ = 0;
};

}  // namespace llmeff::cpu
