// Arrays as JavaScript sees them: a number that names a slot of this environment's table. A slot's generation is part
// of the number, so a handle that was released is recognised instead of naming whatever took its place.
#pragma once

#include <cstdint>
#include <vector>

#include "llmeff/device.h"

namespace llmeff::binding {

struct Array {
  Buffer buffer;  // of no block for an array without elements
  View view;
};

class HandleTable {
 public:
  double insert(Array array);
  const Array& at(double handle) const;  // throws Error(ERR_DISPOSED)
  void release(double handle);           // a released handle is ignored
  // Whether another array has elements between the first and the last of this one in memory.
  bool overlapped(double handle) const;
  size_t live() const { return slots_.size() - free_.size(); }

 private:
  struct Slot {
    Array array;
    uint32_t generation = 1;
    bool live = false;
  };
  const Slot* find(double handle) const;

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
};

}  // namespace llmeff::binding
