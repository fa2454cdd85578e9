// A view of device memory: what every kernel receives. Plain data, so that it crosses threads, translation units
// compiled for different instruction sets, and (later) kernel launches without a constructor or a reference count.
#pragma once

#include <cstdint>

namespace llmeff {

// Header functions are compiled into translation units with different instruction sets; forced inlining keeps the
// linker from picking, say, the AVX-512 copy of one of them for a CPU without it.
#define LLMEFF_INLINE inline __attribute__((always_inline))

enum class DType : uint8_t { kF32, kF64, kBF16, kF16, kI32, kU8, kBool };
inline constexpr int kDTypeCount = 7;
inline constexpr int kMaxRank = 8;

LLMEFF_INLINE int64_t item_size(DType dtype) {
  constexpr int64_t kBytes[kDTypeCount] = {4, 8, 2, 2, 4, 1, 1};
  return kBytes[static_cast<int>(dtype)];
}

// Strides count elements; a broadcast axis has stride 0. `data` already points at element (0, …, 0).
struct View {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};

  template <class T>
  LLMEFF_INLINE T* as() const {
    return static_cast<T*>(data);
  }
  LLMEFF_INLINE bool present() const { return data != nullptr; }
  LLMEFF_INLINE int64_t size() const {
    // Without elements the other axes may be of any length: their product may wrap before it meets the 0.
    uint64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= static_cast<uint64_t>(shape[i]);
    return static_cast<int64_t>(n);
  }
  // Axis counted from the end: dim(-1) is the last.
  LLMEFF_INLINE int64_t dim(int axis) const { return shape[axis < 0 ? rank + axis : axis]; }
  LLMEFF_INLINE int64_t stride(int axis) const { return strides[axis < 0 ? rank + axis : axis]; }
};

// How a kernel uses an argument. An absent optional argument has `data == nullptr`; an empty array never reaches a
// kernel.
struct In : View {};     // read
struct Out : View {};    // written in full, old contents ignored
struct InOut : View {};  // updated in place

template <class V>
struct List {
  const V* items = nullptr;
  int64_t size = 0;
  LLMEFF_INLINE const V& operator[](int64_t i) const { return items[i]; }
};

}  // namespace llmeff
