// Caching allocator: blocks come from the system once and are reused by size class, so that a training step reaches a
// steady state without asking the system for memory.
//
// A block that is released may still have users in the stream. Whoever gets it next submits after them; but before it
// goes back to the system they must have run. So a block leaves the cache in two steps: it is detached, and freed when
// everything that had been submitted by then is done.
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <vector>

#include "llmeff/device.h"

namespace llmeff {

// Where a cache gets its blocks.
class SystemMemory {
 public:
  virtual ~SystemMemory() = default;
  virtual void* take(size_t bytes) = 0;  // 64-byte aligned; null: there is no more
  virtual void give(void* data, size_t bytes) = 0;
  virtual size_t limit() const = 0;  // more than this in all is refused
};

// Of the process, in huge pages where the system has them.
SystemMemory& host_memory();

class CachingAllocator {
 public:
  explicit CachingAllocator(Device* device = nullptr, SystemMemory& system = host_memory())
      : device_(device), system_(system) {}

  // A 64-byte aligned block for a new owner; null when the system has no more.
  Block* allocate(size_t bytes);
  void release(Block* block);

  // Everything in the cache leaves it.
  std::vector<Block*> detach_all();
  // What the cache holds beyond its bound leaves it, largest first. The bound is the most that was ever live since the
  // last detach_all, and no less than kKept. Empty as long as the cache serves all requests: a steady state keeps what
  // it needs.
  std::vector<Block*> detach_surplus();
  // Whether there may be a surplus.
  bool missed() const { return missed_.load(std::memory_order_relaxed); }
  // Gives detached blocks back to the system; no queued work may use them.
  void free(const std::vector<Block*>& blocks);

  void reset_peak();
  MemoryUse use() const;

 private:
  static constexpr size_t kKept = size_t{256} << 20;
  static constexpr int kClasses = 1 + 8 * 56;

  Block* take(int size_class);
  Block* make(size_t capacity);
  std::vector<Block*> detach(size_t bound);

  Device* const device_;
  SystemMemory& system_;
  mutable std::mutex mutex_;
  Block* free_[kClasses] = {};  // lists, the block that was released last first: its memory is in the processor's cache
  size_t live_ = 0, peak_ = 0, highest_ = 0, cached_ = 0;
  size_t held_ = 0;                   // from the system: live, cached and detached
  std::atomic<bool> missed_ = false;  // a request since the last detach_surplus was not served by the cache
  size_t system_allocations_ = 0;
};

}  // namespace llmeff
