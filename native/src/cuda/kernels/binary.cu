// binary: arithmetic, comparisons and logic. A broadcast axis has stride 0.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/elements.cuh"
#include "cuda/kernels/functions.cuh"

namespace llmeff::cuda {
namespace {

// The remainder of the division that rounds down: it has the sign of b. By zero: NaN.
template <class T>
__device__ __forceinline__ T remainder_of(T a, T b) {
  const T r = fmod(a, b);
  if (r == T(0)) return copysign(r, b);
  return (r < T(0)) != (b < T(0)) ? r + b : r;
}

// log(e^a + e^b) around the larger; the difference of two equal infinities counts as 0.
template <class T>
__device__ __forceinline__ T log_add_exp(T a, T b) {
  const T top = nan_max(a, b), gap = a == b ? T(0) : fabs(a - b);
  return top + log1p(exp(-gap));
}

template <class T>
__device__ __noinline__ T apply_rare(BinaryOp op, T a, T b) {
  switch (op) {
    case BinaryOp::kPow:
      return pow(a, b);
    case BinaryOp::kAtan2:
      return atan2(a, b);
    case BinaryOp::kRemainder:
      return remainder_of(a, b);
    default:
      return log_add_exp(a, b);
  }
}

template <class T, int n, class F>
__device__ __forceinline__ void each(T (&a)[n], const T (&b)[n], const F& f) {
#pragma unroll
  for (int i = 0; i < n; ++i) a[i] = f(a[i], b[i]);
}

// a becomes the result.
template <class T, int n>
__device__ __forceinline__ void apply(BinaryOp op, T (&a)[n], const T (&b)[n]) {
  switch (op) {
    case BinaryOp::kAdd:
      return each(a, b, [](T x, T y) { return x + y; });
    case BinaryOp::kSub:
      return each(a, b, [](T x, T y) { return x - y; });
    case BinaryOp::kMul:
      return each(a, b, [](T x, T y) { return x * y; });
    case BinaryOp::kDiv:
      return each(a, b, [](T x, T y) { return x / y; });
    case BinaryOp::kMaximum:
      return each(a, b, [](T x, T y) { return nan_max(x, y); });
    case BinaryOp::kMinimum:
      return each(a, b, [](T x, T y) { return nan_min(x, y); });
    default:
      return each(a, b, [op](T x, T y) { return apply_rare(op, x, y); });
  }
}

// Integers wrap around. Division truncates; by zero it gives 0, and so does the remainder. A negative power of an
// integer is that of 1/x, truncated.
__device__ __noinline__ int32_t apply_integer(BinaryOp op, int32_t a, int32_t b) {
  const uint32_t x = static_cast<uint32_t>(a), y = static_cast<uint32_t>(b);
  switch (op) {
    case BinaryOp::kAdd:
      return static_cast<int32_t>(x + y);
    case BinaryOp::kSub:
      return static_cast<int32_t>(x - y);
    case BinaryOp::kMul:
      return static_cast<int32_t>(x * y);
    case BinaryOp::kMaximum:
      return max(a, b);
    case BinaryOp::kMinimum:
      return min(a, b);
    case BinaryOp::kDiv:
      return b == 0 ? 0 : static_cast<int32_t>(int64_t{a} / b);
    case BinaryOp::kRemainder: {
      const int64_t r = b == 0 ? 0 : int64_t{a} % b;
      return static_cast<int32_t>(r != 0 && (r < 0) != (b < 0) ? r + b : r);
    }
    default: {  // kPow
      if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 != 0 ? -1 : 1) : 0;
      uint32_t power = 1;
      for (uint32_t square = x; b > 0; b >>= 1, square *= square)
        if (b & 1) power *= square;
      return static_cast<int32_t>(power);
    }
  }
}
template <int n>
__device__ __forceinline__ void apply(BinaryOp op, int32_t (&a)[n], const int32_t (&b)[n]) {
  each(a, b, [op](int32_t x, int32_t y) { return apply_integer(op, x, y); });
}

template <class T>
__device__ __forceinline__ bool holds(BinaryOp op, T a, T b) {
  switch (op) {
    case BinaryOp::kEqual:
      return a == b;
    case BinaryOp::kNotEqual:
      return a != b;
    case BinaryOp::kLess:
      return a < b;
    case BinaryOp::kLessEqual:
      return a <= b;
    case BinaryOp::kGreater:
      return a > b;
    case BinaryOp::kGreaterEqual:
      return a >= b;
    case BinaryOp::kLogicalAnd:
      return a != T(0) && b != T(0);
    case BinaryOp::kLogicalOr:
      return a != T(0) || b != T(0);
    default:
      return (a != T(0)) != (b != T(0));
  }
}

bool is_test(BinaryOp op) {
  return (op >= BinaryOp::kEqual && op <= BinaryOp::kGreaterEqual) || op >= BinaryOp::kLogicalAnd;
}

__global__ void __launch_bounds__(kThreads)
    binary_packs_kernel(const __grid_constant__ Walk<3> walk, DType dtype, BinaryOp op) {
  const Packs<3> packs = find_packs(walk, pack_width(dtype));
  float a[kItems], b[kItems];
  load_packs<1>(dtype, walk, packs, a);
  load_packs<2>(dtype, walk, packs, b);
  apply(op, a, b);
  store_packs<0>(dtype, walk, packs, a);
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    binary_strided_kernel(const __grid_constant__ Walk<3> walk, DType dtype, BinaryOp op, bool tests) {
  W a[kStridedItems] = {}, b[kStridedItems] = {};
  int32_t to[kStridedItems];
  for_items(walk, [&](int item, const int32_t (&at)[3]) {
    a[item] = load_as<W>(dtype, walk.data[1], at[1]);
    b[item] = load_as<W>(dtype, walk.data[2], at[2]);
    to[item] = at[0];
  });
  if (tests) {
    for_items(walk,
              [&](int item, const int32_t (&)[3]) { walk.as<uint8_t>(0)[to[item]] = holds(op, a[item], b[item]); });
    return;
  }
  apply(op, a, b);
  for_items(walk, [&](int item, const int32_t (&)[3]) { store_as<W>(dtype, walk.data[0], to[item], a[item]); });
}

template <class W>
void launch_strided(Context& cuda, BinaryOp op, const View& a, const View& b, const View& out, const Loop<3>& loop) {
  for_each_walk<3>({&out, &a, &b}, loop, 1, [&](const Walk<3>& walk) {
    binary_strided_kernel<W><<<blocks_for(walk.count, kThreads * kStridedItems), kThreads, 0, cuda.stream>>>(
        walk, a.dtype, op, is_test(op));
    LLMEFF_LAUNCHED("binary_strided_kernel");
  });
}

}  // namespace

void CudaKernels::binary(BinaryOp op, const In& a, const In& b, const Out& out) {
  const Loop<3> loop = make_loop<3>({&out, &a, &b});
  switch (a.dtype) {
    case DType::kF64:
      return launch_strided<double>(cuda_, op, a, b, out, loop);
    case DType::kI32:
      if (op == BinaryOp::kAtan2 || op == BinaryOp::kLogAddExp)
        fail("ERR_DTYPE", "[binary] operation %d has no kernel for int32", static_cast<int>(op));
      return launch_strided<int32_t>(cuda_, op, a, b, out, loop);
    case DType::kU8:
    case DType::kBool:
      if (!is_test(op)) fail("ERR_DTYPE", "[binary] operation %d has no kernel for bool", static_cast<int>(op));
      return launch_strided<int32_t>(cuda_, op, a, b, out, loop);
    default:
      break;
  }
  const int width = a.dtype == DType::kF32 ? 4 : 8;
  if (is_test(op) || !has_packs<3>({&out, &a, &b}, loop, width))
    return launch_strided<float>(cuda_, op, a, b, out, loop);
  for_each_walk<3>({&out, &a, &b}, loop, width, [&](const Walk<3>& walk) {
    binary_packs_kernel<<<blocks_for(walk.count, kThreads * kItems / width), kThreads, 0, cuda_.stream>>>(walk, a.dtype,
                                                                                                          op);
    LLMEFF_LAUNCHED("binary_packs_kernel");
  });
}

}  // namespace llmeff::cuda
