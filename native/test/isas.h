// The kernels of every instruction set that this build has and this processor runs, so that each test covers them all.
#pragma once

#include <vector>

#include "cpu/dispatch.h"
#include "llmeff/kernels.h"

namespace llmeff::test {

using cpu::Isa;

inline std::vector<Isa> isas() {
  return cpu::usable_isas();
}

// A view of `data` with the given shape and row-major strides, or the given strides.
template <class V, class T>
V view(const T* data, std::vector<int64_t> shape, std::vector<int64_t> strides = {}) {
  V v;
  v.data = const_cast<T*>(data);
  v.dtype = sizeof(T) == 8 ? DType::kF64 : DType::kF32;
  v.rank = static_cast<int>(shape.size());
  int64_t step = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    v.shape[i] = shape[i];
    v.strides[i] = strides.empty() ? step : strides[i];
    step *= shape[i];
  }
  return v;
}

}  // namespace llmeff::test
