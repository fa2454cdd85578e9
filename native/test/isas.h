// The kernels of every instruction set that this processor can run, so that each test covers them all.
#pragma once

#include <vector>

#include "llmeff/kernels.h"

namespace llmeff::cpu {
#if defined(__aarch64__)
namespace neon {
Kernels& kernels();
}
#else
namespace generic {
Kernels& kernels();
}
#if defined(__x86_64__)
namespace avx2 {
Kernels& kernels();
}
namespace avx512 {
Kernels& kernels();
}
#endif
#endif
}  // namespace llmeff::cpu

namespace llmeff::test {

struct Isa {
  const char* name;
  Kernels* kernels;
};

inline std::vector<Isa> isas() {
#if defined(__aarch64__)
  return {{"neon", &cpu::neon::kernels()}};
#else
  std::vector<Isa> found = {{"generic", &cpu::generic::kernels()}};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back({"avx2", &cpu::avx2::kernels()});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    found.push_back({"avx512", &cpu::avx512::kernels()});
#endif
  return found;
#endif
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
