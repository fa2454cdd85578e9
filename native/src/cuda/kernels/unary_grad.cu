// unary_grad: dx = dy · f'(x) in one pass, from x alone. The slopes are written so that nothing cancels: 1 − tanh² as
// 1/cosh², 1 − sigmoid(x) as sigmoid(−x).
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/elements.cuh"
#include "cuda/kernels/functions.cuh"

namespace llmeff::cuda {
namespace {

template <class T>
__device__ __noinline__ T rare_gradient(UnaryOp op, T x, T dy) {
  switch (op) {
    case UnaryOp::kLog:
      return dy / x;
    case UnaryOp::kRsqrt:
      return dy * T(-0.5) / x / sqrt(x);
    case UnaryOp::kReciprocal:
      return -dy / x / x;
    case UnaryOp::kSin:
      return dy * cos(x);
    case UnaryOp::kCos:
      return -dy * sin(x);
    case UnaryOp::kLog1p:
      return dy / (T(1) + x);
    case UnaryOp::kTan: {
      const T t = tan(x);
      return dy * (T(1) + t * t);
    }
    case UnaryOp::kAsin:
      return dy / sqrt((T(1) - x) * (T(1) + x));
    case UnaryOp::kAcos:
      return -dy / sqrt((T(1) - x) * (T(1) + x));
    case UnaryOp::kAtan:
      return dy / (T(1) + x * x);
    case UnaryOp::kSinh:
      return dy * cosh(x);
    case UnaryOp::kCosh:
      return dy * sinh(x);
    default:  // kErf
      return dy * (exp(-x * x) * T(1.1283791670955126));
  }
}

template <class T, int n, class F>
__device__ __forceinline__ void each(const T (&x)[n], T (&dy)[n], const F& f) {
#pragma unroll
  for (int i = 0; i < n; ++i) dy[i] = f(x[i], dy[i]);
}

// dy becomes dx.
template <class T, int n>
__device__ __forceinline__ void apply(UnaryOp op, const T (&x)[n], T (&dy)[n]) {
  switch (op) {
    case UnaryOp::kNeg:
      return each(x, dy, [](T, T d) { return -d; });
    case UnaryOp::kAbs:
      return each(x, dy, [](T v, T d) { return v > T(0) ? d : v < T(0) ? -d : v; });
    case UnaryOp::kRelu:
      return each(x, dy, [](T v, T d) { return v > T(0) ? d : T(0); });
    case UnaryOp::kSquare:
      return each(x, dy, [](T v, T d) { return d * (v + v); });
    case UnaryOp::kExp:
    case UnaryOp::kExpm1:
      return each(x, dy, [](T v, T d) { return d * exp(v); });
    case UnaryOp::kSqrt:
      return each(x, dy, [](T v, T d) { return d * T(0.5) / sqrt(v); });
    case UnaryOp::kTanh:
      return each(x, dy, [](T v, T d) { return d * (T(4) * logistic_slope(v + v)); });
    case UnaryOp::kSigmoid:
      return each(x, dy, [](T v, T d) { return d * logistic_slope(v); });
    case UnaryOp::kSoftplus:
      return each(x, dy, [](T v, T d) { return d * logistic_pair(v).value; });
    case UnaryOp::kSilu:
      return each(x, dy, [](T v, T d) { return d * silu_slope(v); });
    case UnaryOp::kGelu:
      return each(x, dy, [](T v, T d) { return d * gelu_slope(v); });
    case UnaryOp::kGeluErf:
      return each(x, dy, [](T v, T d) { return d * gelu_erf_slope(v); });
    default:
      return each(x, dy, [op](T v, T d) { return rare_gradient(op, v, d); });
  }
}

__global__ void __launch_bounds__(kThreads)
    unary_grad_packs_kernel(const __grid_constant__ Walk<3> walk, DType dtype, UnaryOp op) {
  const Packs<3> packs = find_packs(walk, pack_width(dtype));
  float x[kItems], dy[kItems];
  load_packs<1>(dtype, walk, packs, x);
  load_packs<2>(dtype, walk, packs, dy);
  apply(op, x, dy);
  store_packs<0>(dtype, walk, packs, dy);
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    unary_grad_strided_kernel(const __grid_constant__ Walk<3> walk, DType dtype, UnaryOp op) {
  W x[kStridedItems] = {}, dy[kStridedItems] = {};
  int32_t to[kStridedItems];
  for_items(walk, [&](int item, const int32_t (&at)[3]) {
    x[item] = load_as<W>(dtype, walk.data[1], at[1]);
    dy[item] = load_as<W>(dtype, walk.data[2], at[2]);
    to[item] = at[0];
  });
  apply(op, x, dy);
  for_items(walk, [&](int item, const int32_t (&)[3]) { store_as<W>(dtype, walk.data[0], to[item], dy[item]); });
}

bool is_differentiable(UnaryOp op) {
  return op <= UnaryOp::kSoftplus && op != UnaryOp::kIsFinite;
}

}  // namespace

void CudaKernels::unary_grad(UnaryOp op, const In& x, const In& dy, const Out& dx) {
  if (!is_differentiable(op)) fail("ERR_INTERNAL", "[unary_grad] operation %d has no gradient", static_cast<int>(op));
  const Loop<3> loop = make_loop<3>({&dx, &x, &dy});
  const int width = x.dtype == DType::kF32 ? 4 : 8;
  if (x.dtype != DType::kF64 && has_packs<3>({&dx, &x, &dy}, loop, width))
    return for_each_walk<3>({&dx, &x, &dy}, loop, width, [&](const Walk<3>& walk) {
      unary_grad_packs_kernel<<<blocks_for(walk.count, kThreads * kItems / width), kThreads, 0, cuda_.stream>>>(
          walk, x.dtype, op);
      LLMEFF_LAUNCHED("unary_grad_packs_kernel");
    });
  for_each_walk<3>({&dx, &x, &dy}, loop, 1, [&](const Walk<3>& walk) {
    const unsigned blocks = blocks_for(walk.count, kThreads * kStridedItems);
    if (x.dtype == DType::kF64)
      unary_grad_strided_kernel<double><<<blocks, kThreads, 0, cuda_.stream>>>(walk, x.dtype, op);
    else
      unary_grad_strided_kernel<float><<<blocks, kThreads, 0, cuda_.stream>>>(walk, x.dtype, op);
    LLMEFF_LAUNCHED("unary_grad_strided_kernel");
  });
}

}  // namespace llmeff::cuda
