#include "cpu/allocator.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace llmeff::cpu {
namespace {

constexpr size_t kSmallest = 256;
constexpr size_t kHugePage = size_t{2} << 20;

// Eight classes to each power of two: at most 12.5 % of a block is unused.
size_t size_class(size_t bytes) {
  if (bytes <= kSmallest) return kSmallest;
  const size_t step = std::bit_floor(bytes - 1) / 8;
  const size_t granule = step < 64 ? 64 : step;
  return (bytes + granule - 1) / granule * granule;
}

// What a control group allows this process; containers have less than their host.
size_t control_group_limit() {
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    size_t bytes = 0;
    if (file >> bytes) return bytes;  // "max" is no number: no limit
  }
  return static_cast<size_t>(-1) / 2;
}

// The system may promise more than it has and end the process on first touch; refuse before that.
size_t usable_memory() {
  size_t limit = control_group_limit();
#if defined(_SC_PHYS_PAGES)
  const long pages = sysconf(_SC_PHYS_PAGES), page_size = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_size > 0) limit = std::min(limit, static_cast<size_t>(pages) * static_cast<size_t>(page_size));
#endif
  return limit;
}

size_t alignment_of(size_t capacity) {
  return capacity >= kHugePage ? kHugePage : 64;
}

void free_block(void* data, size_t capacity) {
  ::operator delete (data, std::align_val_t{alignment_of(capacity)});
}

}  // namespace

void* CachingAllocator::allocate(size_t bytes, size_t& capacity) {
  static const size_t limit = usable_memory();
  if (bytes > limit) return nullptr;
  capacity = size_class(bytes);
  std::lock_guard lock(mutex_);
  void* data = nullptr;
  if (const auto found = free_.find(capacity); found != free_.end() && !found->second.empty()) {
    data = found->second.back();
    found->second.pop_back();
    cached_ -= capacity;
  } else {
    if (live_ + cached_ + capacity > limit) return nullptr;
    data = ::operator new (capacity, std::align_val_t{alignment_of(capacity)}, std::nothrow);
    if (data == nullptr) return nullptr;
#if defined(__linux__)
    if (capacity >= kHugePage) madvise(data, capacity, MADV_HUGEPAGE);
#endif
    ++system_allocations_;
  }
  live_ += capacity;
  if (live_ > peak_) peak_ = live_;
  return data;
}

void CachingAllocator::release(void* data, size_t capacity) {
  std::lock_guard lock(mutex_);
  free_[capacity].push_back(data);
  live_ -= capacity;
  cached_ += capacity;
}

void CachingAllocator::empty_cache() {
  std::lock_guard lock(mutex_);
  for (auto& [capacity, blocks] : free_)
    for (void* data : blocks) free_block(data, capacity);
  free_.clear();
  cached_ = 0;
}

void CachingAllocator::reset_peak() {
  std::lock_guard lock(mutex_);
  peak_ = live_;
}

MemoryUse CachingAllocator::use() const {
  std::lock_guard lock(mutex_);
  return {live_, peak_, cached_, system_allocations_};
}

}  // namespace llmeff::cpu
