#include "runtime/allocator.h"

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

namespace llmeff {
namespace {

constexpr size_t kSmallest = 256;
constexpr size_t kHugePage = size_t{2} << 20;
// Blocks of at least this size also serve requests of up to a fifth less.
constexpr size_t kShared = size_t{1} << 20;

// Eight classes to each power of two: at most 12.5 % of a block is unused. Class 0 is kSmallest; class 1 + 8·e + k is
// (1 + (k + 1) / 8) · 2^e · kSmallest. Below 512 every other one is left out: blocks are multiples of 64 bytes.
struct SizeClass {
  int index;
  size_t bytes;
};
SizeClass size_class(size_t bytes) {
  if (bytes <= kSmallest) return {0, kSmallest};
  const int exponent = std::bit_width(bytes - 1) - 1;
  const size_t base = size_t{1} << exponent, step = base / 8, granule = std::max(step, size_t{64});
  const size_t rounded = base + (bytes - base + granule - 1) / granule * granule;
  return {1 + 8 * (exponent - 8) + static_cast<int>((rounded - base) / step) - 1, rounded};
}

int largest_class_within(size_t bytes) {
  const auto [index, rounded] = size_class(bytes);
  return rounded <= bytes ? index : index - 1;
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

class HostMemory final : public SystemMemory {
 public:
  void* take(size_t bytes) override {
    void* const data = ::operator new (bytes, alignment_of(bytes), std::nothrow);
#if defined(__linux__)
    if (data != nullptr && bytes >= kHugePage) madvise(data, bytes, MADV_HUGEPAGE);
#endif
    return data;
  }
  void give(void* data, size_t bytes) override { ::operator delete (data, alignment_of(bytes)); }
  size_t limit() const override { return limit_; }

 private:
  static std::align_val_t alignment_of(size_t bytes) {
    return std::align_val_t{bytes >= kHugePage ? kHugePage : 64};
  }
  const size_t limit_ = usable_memory();
};

}  // namespace

SystemMemory& host_memory() {
  static HostMemory* const memory = new HostMemory();  // never destroyed, as the devices that use it
  return *memory;
}

Block* CachingAllocator::take(int size_class) {
  Block* const block = free_[size_class];
  if (block == nullptr) return nullptr;
  free_[size_class] = block->next;
  cached_ -= block->capacity;
  return block;
}

Block* CachingAllocator::make(size_t capacity) {
  void* const data = system_.take(capacity);
  if (data == nullptr) return nullptr;
  held_ += capacity;
  missed_ = true;
  ++system_allocations_;
  return new Block(device_, data, capacity);
}

Block* CachingAllocator::allocate(size_t bytes) {
  const size_t limit = system_.limit();
  if (bytes > limit) return nullptr;
  const auto [first, wanted] = size_class(bytes);
  const int last = wanted < kShared ? first : largest_class_within(wanted + wanted / 4);
  std::lock_guard lock(mutex_);
  Block* block = nullptr;
  for (int i = first; i <= last && block == nullptr; ++i) block = take(i);
  if (block == nullptr && held_ + wanted <= limit) block = make(wanted);
  if (block == nullptr) return nullptr;
  block->bytes = bytes;
  ++block->owner;
  // What is live counts as it was asked for: the same from step to step, whichever blocks were free.
  live_ += wanted;
  peak_ = std::max(peak_, live_);
  highest_ = std::max(highest_, live_);
  return block;
}

void CachingAllocator::release(Block* block) {
  const size_t asked = size_class(block->bytes).bytes;
  const int index = size_class(block->capacity).index;
  std::lock_guard lock(mutex_);
  block->next = free_[index];
  free_[index] = block;
  live_ -= asked;
  cached_ += block->capacity;
}

std::vector<Block*> CachingAllocator::detach(size_t bound) {
  std::vector<Block*> blocks;
  for (int i = kClasses - 1; i >= 0 && cached_ > bound; --i)
    while (cached_ > bound && free_[i] != nullptr) blocks.push_back(take(i));
  return blocks;
}

std::vector<Block*> CachingAllocator::detach_all() {
  std::lock_guard lock(mutex_);
  highest_ = live_;
  return detach(0);
}

std::vector<Block*> CachingAllocator::detach_surplus() {
  std::lock_guard lock(mutex_);
  if (!missed_.exchange(false)) return {};
  return detach(std::max(highest_, kKept));
}

void CachingAllocator::free(const std::vector<Block*>& blocks) {
  size_t bytes = 0;
  for (Block* const block : blocks) {
    system_.give(block->data, block->capacity);
    bytes += block->capacity;
    delete block;
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

}  // namespace llmeff
