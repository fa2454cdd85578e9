// A view of memory in which the last axis is the fastest, for tests and timing programs.
#pragma once

#include <cstdint>
#include <vector>

#include "llmeff/kernels.h"

namespace llmeff {

inline View row_major(void* data, DType dtype, const std::vector<int64_t>& shape) {
  View v;
  v.data = data;
  v.dtype = dtype;
  v.rank = static_cast<int>(shape.size());
  int64_t step = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    v.shape[i] = shape[static_cast<size_t>(i)];
    v.strides[i] = step;
    step *= v.shape[i];
  }
  return v;
}

}  // namespace llmeff
