// Memory of a recorded program: blocks that nobody else gets as long as the program may run. While it is recorded,
// blocks that are released serve its later calls, as they will run in this order; afterwards they wait.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "llmeff/device.h"

namespace llmeff {

class BlockPool : public std::enable_shared_from_this<BlockPool> {
 public:
  explicit BlockPool(Device& device) : device_(device) {}

  // Throws Error(ERR_OUT_OF_MEMORY).
  Buffer allocate(size_t bytes);
  void release(Block* block);
  // The blocks go back to the device's cache: what is free at once, the rest as it is released.
  void close();

  // All that it ever had.
  const std::vector<Block*>& blocks() const { return blocks_; }

 private:
  void give_back(Block* block);

  Device& device_;
  std::mutex mutex_;
  std::multimap<size_t, Block*> free_;        // by capacity
  std::unordered_map<Block*, size_t> asked_;  // what the device counts each of them as
  std::vector<Block*> blocks_;
  bool closed_ = false;
};

}  // namespace llmeff
