#include "binding/handles.h"

#include "llmeff/error.h"

namespace llmeff::binding {
namespace {

// handle = generation · 2^24 + slot, exact in a double.
constexpr double kSlots = 16777216.0;

}  // namespace

const HandleTable::Slot* HandleTable::find(double handle) const {
  if (!(handle >= 0 && handle < 9007199254740992.0)) return nullptr;
  const uint64_t bits = static_cast<uint64_t>(handle);
  const uint64_t index = bits & 0xFFFFFF;
  if (index >= slots_.size()) return nullptr;
  const Slot& slot = slots_[index];
  return slot.live && slot.generation == bits >> 24 ? &slot : nullptr;
}

double HandleTable::insert(Array array) {
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (slots_.size() >= static_cast<size_t>(kSlots))
      fail("ERR_OUT_OF_MEMORY", "[native] more than %zu tensors are alive. Dispose some, or use scope().",
           slots_.size());
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  }
  Slot& slot = slots_[index];
  slot.array = std::move(array);
  slot.live = true;
  return static_cast<double>(slot.generation) * kSlots + index;
}

const Array& HandleTable::at(double handle) const {
  const Slot* slot = find(handle);
  if (slot == nullptr)
    fail("ERR_DISPOSED", "[native] handle %.0f does not name a live array; it was disposed or never created.", handle);
  return slot->array;
}

void HandleTable::release(double handle) {
  Slot* slot = const_cast<Slot*>(find(handle));
  if (slot == nullptr) return;
  slot->array = {};
  slot->live = false;
  slot->generation = (slot->generation + 1) & 0x1FFFFFFF;
  free_.push_back(static_cast<uint32_t>(slot - slots_.data()));
}

}  // namespace llmeff::binding
