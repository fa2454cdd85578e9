#include "runtime/block_pool.h"

#include <algorithm>
#include <utility>

namespace llmeff {
namespace {

// A block serves requests of down to four fifths of it, or any of the smallest.
constexpr size_t kSmall = 1024;

size_t largest_for(size_t bytes) {
  return std::max(bytes + bytes / 4, kSmall);
}

}  // namespace

void return_to_pool(Block* block) {
  const std::shared_ptr<BlockPool> pool = block->pool;
  pool->release(block);
}

Buffer BlockPool::allocate(size_t bytes) {
  {
    std::lock_guard lock(mutex_);
    const auto found = free_.lower_bound(bytes);
    if (found != free_.end() && found->first <= largest_for(bytes)) {
      Block* const block = found->second;
      free_.erase(found);
      block->bytes = bytes;
      ++block->owner;
      return Buffer(block);
    }
  }
  Buffer buffer = device_.allocate(bytes);
  Block* const block = buffer.block_;
  std::lock_guard lock(mutex_);
  asked_.emplace(block, bytes);
  blocks_.push_back(block);
  block->pool = shared_from_this();
  return buffer;
}

void BlockPool::release(Block* block) {
  std::lock_guard lock(mutex_);
  if (closed_)
    give_back(block);
  else
    free_.emplace(block->capacity, block);
}

void BlockPool::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  for (const auto& [capacity, block] : std::exchange(free_, {})) give_back(block);
}

void BlockPool::give_back(Block* block) {
  block->bytes = asked_.at(block);
  block->pool = nullptr;
  device_.release(block);
}

}  // namespace llmeff
