// Numbers of one dtype as those of another.
//
// float → float rounds to nearest, ties to even (float64 → 16 bits without rounding twice); float → integer truncates,
// saturates at the ends of the range and turns NaN into 0; int32 → uint8 keeps the low 8 bits; → bool is x != 0.
#pragma once

#include "cuda/kernels/dtypes.cuh"

namespace llmeff::cuda {

// float64 → float32 towards zero, with the lowest bit set when that isn't exact: a later rounding to 16 bits then gives
// what one rounding would have given.
__host__ __device__ inline float to_odd(double x) {
#ifdef __CUDA_ARCH__
  const float cut = __double2float_rz(x);
  return static_cast<double>(cut) == x ? cut : __uint_as_float(__float_as_uint(cut) | 1u);
#else
  const float nearest = static_cast<float>(x);
  uint32_t bits = __builtin_bit_cast(uint32_t, nearest);
  const double error = __builtin_fabs(x) - __builtin_fabs(static_cast<double>(nearest));
  if ((bits & 1u) == 0 && (error > 0 || error < 0) && (bits & 0x7FFFFFFFu) < 0x7F800000u) bits += error > 0 ? 1u : ~0u;
  return __builtin_bit_cast(float, bits);
#endif
}

__host__ __device__ inline int32_t to_int32(double x) {
  return x != x ? 0 : x >= 2147483647.0 ? 2147483647 : x <= -2147483648.0 ? -2147483647 - 1 : static_cast<int32_t>(x);
}

// Every dtype but float64 is exact in float64, which is what numbers pass through.
__device__ inline double load_number(DType dtype, const void* data, int64_t at) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[at];
    case DType::kF64:
      return static_cast<const double*>(data)[at];
    case DType::kBF16:
      return __bfloat162float(static_cast<const bf16*>(data)[at]);
    case DType::kF16:
      return __half2float(static_cast<const f16*>(data)[at]);
    case DType::kI32:
      return static_cast<const int32_t*>(data)[at];
    case DType::kU8:
      return static_cast<const uint8_t*>(data)[at];
    default:
      return static_cast<const uint8_t*>(data)[at] != 0 ? 1.0 : 0.0;
  }
}

// `wraps`: the number was an int32.
__host__ __device__ inline void store_number(DType dtype, void* data, int64_t at, double x, bool wraps) {
  switch (dtype) {
    case DType::kF32:
      static_cast<float*>(data)[at] = static_cast<float>(x);
      return;
    case DType::kF64:
      static_cast<double*>(data)[at] = x;
      return;
    case DType::kBF16:
      static_cast<bf16*>(data)[at] = __float2bfloat16_rn(to_odd(x));
      return;
    case DType::kF16:
      static_cast<f16*>(data)[at] = __float2half_rn(to_odd(x));
      return;
    case DType::kI32:
      static_cast<int32_t*>(data)[at] = to_int32(x);
      return;
    case DType::kU8:
      static_cast<uint8_t*>(data)[at] = static_cast<uint8_t>(wraps   ? to_int32(x) & 0xFF
                                                             : x > 0 ? (x < 255 ? static_cast<int32_t>(x) : 255)
                                                                     : 0);
      return;
    default:
      static_cast<uint8_t*>(data)[at] = x != 0;
  }
}

}  // namespace llmeff::cuda
