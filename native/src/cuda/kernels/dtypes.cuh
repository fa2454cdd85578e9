// Element types in kernels: what is computed with (float32, or float64 for float64), and the dtype of a view as a type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "llmeff/error.h"
#include "llmeff/view.h"

namespace llmeff::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;

// What values of T are computed in.
template <class T>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};
template <>
struct Wide<int32_t> {
  using type = int32_t;
};
template <class T>
using wide_t = typename Wide<T>::type;

template <class W, class T>
__device__ __forceinline__ W widen(T x) {
  return static_cast<W>(x);
}
template <class W>
__device__ __forceinline__ W widen(bf16 x) {
  return static_cast<W>(__bfloat162float(x));
}
template <class W>
__device__ __forceinline__ W widen(f16 x) {
  return static_cast<W>(__half2float(x));
}

// Rounds to nearest even where T is narrower.
template <class T, class W>
__device__ __forceinline__ T narrow(W x) {
  if constexpr (sizeof(T) == 2 && !__is_same(T, int16_t)) {
    if constexpr (__is_same(T, bf16)) return __float2bfloat16_rn(static_cast<float>(x));
    else return __float2half_rn(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}

// 16 bytes of T, loaded and stored at once.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T at[kSize];
};

template <class T>
struct TypeTag {
  using type = T;
};

// body(TypeTag<T>) for the floating type of a view.
template <class F>
void with_floating(DType dtype, F&& body) {
  switch (dtype) {
    case DType::kF32:
      return body(TypeTag<float>{});
    case DType::kF64:
      return body(TypeTag<double>{});
    case DType::kBF16:
      return body(TypeTag<bf16>{});
    case DType::kF16:
      return body(TypeTag<f16>{});
    default:
      fail("ERR_DTYPE", "[cuda] expected a floating-point array; received dtype %d.", static_cast<int>(dtype));
  }
}

}  // namespace llmeff::cuda
