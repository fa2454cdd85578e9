#include "cpu/allocator.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <iterator>
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
// Blocks of at least this size also serve requests of up to a fifth less.
constexpr size_t kShared = size_t{1} << 20;

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

}  // namespace

void* CachingAllocator::allocate(size_t bytes, size_t& capacity) {
  static const size_t limit = usable_memory();
  if (bytes > limit) return nullptr;
  const size_t wanted = size_class(bytes), largest = wanted < kShared ? wanted : wanted + wanted / 4;
  std::lock_guard lock(mutex_);
  void* data = nullptr;
  auto found = free_.lower_bound(wanted);
  while (found != free_.end() && found->first <= largest && found->second.empty()) ++found;
  if (found != free_.end() && found->first <= largest) {
    capacity = found->first;
    data = found->second.back();
    found->second.pop_back();
    cached_ -= capacity;
  } else {
    if (held_ + wanted > limit) return nullptr;
    capacity = wanted;
    data = ::operator new (capacity, std::align_val_t{alignment_of(capacity)}, std::nothrow);
    if (data == nullptr) return nullptr;
#if defined(__linux__)
    if (capacity >= kHugePage) madvise(data, capacity, MADV_HUGEPAGE);
#endif
    held_ += capacity;
    missed_ = true;
    ++system_allocations_;
  }
  // What is live counts as it was asked for: the same from step to step, whichever blocks were free.
  live_ += wanted;
  peak_ = std::max(peak_, live_);
  highest_ = std::max(highest_, live_);
  return data;
}

void CachingAllocator::release(void* data, size_t bytes, size_t capacity) {
  std::lock_guard lock(mutex_);
  free_[capacity].push_back(data);
  live_ -= size_class(bytes);
  cached_ += capacity;
}

std::vector<CachingAllocator::Block> CachingAllocator::detach_all() {
  std::lock_guard lock(mutex_);
  std::vector<Block> blocks;
  for (const auto& [capacity, list] : free_)
    for (void* data : list) blocks.push_back({data, capacity});
  free_.clear();
  cached_ = 0;
  highest_ = live_;
  return blocks;
}

std::vector<CachingAllocator::Block> CachingAllocator::detach_surplus() {
  std::lock_guard lock(mutex_);
  std::vector<Block> blocks;
  if (!missed_) return blocks;
  missed_ = false;
  const size_t bound = std::max(highest_, kKept);
  while (cached_ > bound) {
    const auto last = std::prev(free_.end());
    if (last->second.empty()) {
      free_.erase(last);
      continue;
    }
    blocks.push_back({last->second.back(), last->first});
    last->second.pop_back();
    cached_ -= last->first;
  }
  return blocks;
}

void CachingAllocator::free(const std::vector<Block>& blocks) {
  size_t bytes = 0;
  for (const Block& block : blocks) {
    ::operator delete (block.data, std::align_val_t{alignment_of(block.capacity)});
    bytes += block.capacity;
  }
  std::lock_guard lock(mutex_);
  held_ -= bytes;
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
