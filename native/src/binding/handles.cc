#include "binding/handles.h"

#include "llmeff/error.h"

namespace llmeff::binding {
namespace {

// handle = generation · 2^24 + slot, exact in a double.
constexpr double kSlots = 16777216.0;

// The bytes from the first to the last element, of an array that has some.
struct Extent {
  const char *begin, *end;

  explicit Extent(const View& view) : begin(static_cast<const char*>(view.data)), end(begin) {
    const int64_t item = item_size(view.dtype);
    end += item;
    for (int axis = 0; axis < view.rank; ++axis) {
      const int64_t reach = (view.shape[axis] - 1) * view.strides[axis] * item;
      (reach < 0 ? begin : end) += reach;
    }
  }
};

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

bool HandleTable::overlapped(double handle) const {
  const Array& array = at(handle);
  if (!array.buffer || !array.buffer.shared()) return false;
  const Extent own(array.view);
  for (const Slot& slot : slots_) {
    if (!slot.live || &slot.array == &array || !slot.array.buffer) continue;
    const Extent other(slot.array.view);
    if (other.begin < own.end && own.begin < other.end) return true;
  }
  return false;
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
