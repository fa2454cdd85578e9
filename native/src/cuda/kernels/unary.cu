// unary: a function of every element. The usual functions are compiled into the kernels, the others are called.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/elements.cuh"
#include "cuda/kernels/functions.cuh"

namespace llmeff::cuda {
namespace {

template <class T>
__device__ __noinline__ T apply_rare(UnaryOp op, T x) {
  switch (op) {
    case UnaryOp::kLog:
      return log(x);
    case UnaryOp::kSin:
      return sin(x);
    case UnaryOp::kCos:
      return cos(x);
    case UnaryOp::kExpm1:
      return expm1(x);
    case UnaryOp::kLog1p:
      return log1p(x);
    case UnaryOp::kTan:
      return tan(x);
    case UnaryOp::kAsin:
      return asin(x);
    case UnaryOp::kAcos:
      return acos(x);
    case UnaryOp::kAtan:
      return atan(x);
    case UnaryOp::kSinh:
      return sinh(x);
    case UnaryOp::kCosh:
      return cosh(x);
    case UnaryOp::kErf:
      return erf(x);
    case UnaryOp::kSoftplus:
      return softplus(x);
    case UnaryOp::kFloor:
      return floor(x);
    case UnaryOp::kCeil:
      return ceil(x);
    case UnaryOp::kRound:
      return rint(x);
    default:
      return trunc(x);
  }
}

template <class T, int n, class F>
__device__ __forceinline__ void each(T (&x)[n], const F& f) {
#pragma unroll
  for (int i = 0; i < n; ++i) x[i] = f(x[i]);
}

template <class T, int n>
__device__ __forceinline__ void apply(UnaryOp op, T (&x)[n]) {
  switch (op) {
    case UnaryOp::kNeg:
      return each(x, [](T v) { return -v; });
    case UnaryOp::kAbs:
      return each(x, [](T v) { return fabs(v); });
    case UnaryOp::kSquare:
      return each(x, [](T v) { return v * v; });
    case UnaryOp::kSign:
      return each(x, [](T v) { return v > T(0) ? T(1) : v < T(0) ? T(-1) : v; });
    case UnaryOp::kExp:
      return each(x, [](T v) { return exp(v); });
    case UnaryOp::kSqrt:
      return each(x, [](T v) { return sqrt(v); });
    case UnaryOp::kRsqrt:
      return each(x, [](T v) { return rsqrt(v); });
    case UnaryOp::kReciprocal:
      return each(x, [](T v) { return T(1) / v; });
    case UnaryOp::kTanh:
      return each(x, [](T v) { return tanh(v); });
    case UnaryOp::kSigmoid:
      return each(x, [](T v) { return logistic_pair(v).value; });
    case UnaryOp::kSilu:
      return each(x, [](T v) { return silu(v); });
    case UnaryOp::kGelu:
      return each(x, [](T v) { return gelu(v); });
    case UnaryOp::kGeluErf:
      return each(x, [](T v) { return gelu_erf(v); });
    case UnaryOp::kRelu:
      return each(x, [](T v) { return relu(v); });
    default:
      return each(x, [op](T v) { return apply_rare(op, v); });
  }
}
// Integers wrap around, as only unsigned ones may.
template <int n>
__device__ __forceinline__ void apply(UnaryOp op, int32_t (&x)[n]) {
  switch (op) {
    case UnaryOp::kNeg:
      return each(x, [](int32_t v) { return static_cast<int32_t>(0u - static_cast<uint32_t>(v)); });
    case UnaryOp::kAbs:
      return each(x, [](int32_t v) { return v < 0 ? static_cast<int32_t>(0u - static_cast<uint32_t>(v)) : v; });
    case UnaryOp::kSquare:
      return each(x,
                  [](int32_t v) { return static_cast<int32_t>(static_cast<uint32_t>(v) * static_cast<uint32_t>(v)); });
    default:
      return each(x, [](int32_t v) { return v > 0 ? 1 : v < 0 ? -1 : 0; });
  }
}

// Four packs of 16 bytes are on their way before the first is computed with; those of 16-bit numbers in two rounds.
constexpr int kPacks = 4;

__global__ void __launch_bounds__(kThreads)
    unary_packs_kernel(const __grid_constant__ Walk<2> walk, DType dtype, UnaryOp op) {
  Packs<2> packs = find_packs(walk, pack_width(dtype), kPacks);
  const bool wide = dtype == DType::kF32;
  uint4 raw[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    raw[p] = wide ? load_raw<uint32_t, 1>(walk, packs.at[p][1], packs.valid[p])
                  : load_raw<uint16_t, 1>(walk, packs.at[p][1], packs.valid[p]);
#pragma unroll 1
  for (int round = wide ? 1 : 2; round > 0; --round) {
    float x[kItems];
    unpack(dtype, raw, x);
    apply(op, x);
    store_packs<0>(dtype, walk, packs, x);
#pragma unroll
    for (int p = 0; p < kPacks / 2; ++p) {
      raw[p] = raw[p + kPacks / 2];
      packs.at[p][0] = packs.at[p + kPacks / 2][0];
      packs.valid[p] = packs.valid[p + kPacks / 2];
    }
  }
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    unary_strided_kernel(const __grid_constant__ Walk<2> walk, DType dtype, UnaryOp op) {
  W x[kStridedItems] = {};
  int32_t to[kStridedItems];
  for_items(walk, [&](int item, const int32_t (&at)[2]) {
    x[item] = load_as<W>(dtype, walk.data[1], at[1]);
    to[item] = at[0];
  });
  apply(op, x);
  for_items(walk, [&](int item, const int32_t (&)[2]) { store_as<W>(dtype, walk.data[0], to[item], x[item]); });
}

// kIsFinite, kIsNan of floating dtypes, kLogicalNot of bool.
template <class W>
__global__ void __launch_bounds__(kThreads)
    unary_test_kernel(const __grid_constant__ Walk<2> walk, DType dtype, UnaryOp op) {
  for_items(walk, [&](int, const int32_t (&at)[2]) {
    const W x = load_as<W>(dtype, walk.data[1], at[1]);
    walk.as<uint8_t>(0)[at[0]] = op == UnaryOp::kIsFinite ? x - x == W(0) : op == UnaryOp::kIsNan ? x != x : x == W(0);
  });
}

template <class W>
void launch_strided(Context& cuda, UnaryOp op, const View& x, const View& out, const Loop<2>& loop) {
  const bool tests = op == UnaryOp::kIsFinite || op == UnaryOp::kIsNan || op == UnaryOp::kLogicalNot;
  for_each_walk<2>({&out, &x}, loop, 1, [&](const Walk<2>& walk) {
    const unsigned blocks = blocks_for(walk.count, kThreads * kStridedItems);
    if (tests)
      unary_test_kernel<W><<<blocks, kThreads, 0, cuda.stream>>>(walk, x.dtype, op);
    else
      unary_strided_kernel<W><<<blocks, kThreads, 0, cuda.stream>>>(walk, x.dtype, op);
    LLMEFF_LAUNCHED("unary_strided_kernel");
  });
}

bool takes_integers(UnaryOp op) {
  return op == UnaryOp::kNeg || op == UnaryOp::kAbs || op == UnaryOp::kSquare || op == UnaryOp::kSign;
}

}  // namespace

void CudaKernels::unary(UnaryOp op, const In& x, const Out& out) {
  const Loop<2> loop = make_loop<2>({&out, &x});
  switch (x.dtype) {
    case DType::kF64:
      return launch_strided<double>(cuda_, op, x, out, loop);
    case DType::kI32:
      if (!takes_integers(op)) fail("ERR_DTYPE", "[unary] operation %d has no kernel for int32", static_cast<int>(op));
      return launch_strided<int32_t>(cuda_, op, x, out, loop);
    case DType::kU8:
    case DType::kBool:
      if (op != UnaryOp::kLogicalNot)
        fail("ERR_DTYPE", "[unary] operation %d has no kernel for bool", static_cast<int>(op));
      return launch_strided<int32_t>(cuda_, op, x, out, loop);
    default:
      break;
  }
  const int width = x.dtype == DType::kF32 ? 4 : 8;
  if (x.dtype != out.dtype || !has_packs<2>({&out, &x}, loop, width))
    return launch_strided<float>(cuda_, op, x, out, loop);
  for_each_walk<2>({&out, &x}, loop, width, [&](const Walk<2>& walk) {
    unary_packs_kernel<<<blocks_for(walk.count, kThreads * kPacks), kThreads, 0, cuda_.stream>>>(walk, x.dtype, op);
    LLMEFF_LAUNCHED("unary_packs_kernel");
  });
}

}  // namespace llmeff::cuda
