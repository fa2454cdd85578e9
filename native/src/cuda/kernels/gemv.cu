// out[m, n] = activation(Σ_k x[m, k] · w[n, k] + bias[n]) for few rows m. A warp has kRows neighbouring outputs: its
// lanes go through the rows of the weights side by side, 16 bytes each, with several loads on their way; then they add
// up. Several matrices of the same x are one launch, their outputs side by side; or, of two, silu of the one times the
// other, for which a warp has an output of each.
#include "cuda/kernels/gemv.h"

#include <algorithm>

#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kWarps = 4, kMostMatrices = 8, kMostRows = 4;

struct Gemv {
  const void* weights[kMostMatrices];
  int64_t weight_strides[kMostMatrices];
  int64_t ends[kMostMatrices];  // of their outputs
  const void *x, *bias;
  void *out, *pre;  // laid out alike; pre may be null
  int64_t x_stride, out_stride, outputs;
  int packs;  // of 16 bytes in a row
  Activation activation;
};

template <class T, int kM, int kRows, bool kGated>
__global__ void __launch_bounds__(32 * kWarps) gemv_kernel(const __grid_constant__ Gemv a) {
  static_assert(!kGated || kRows == 2);
  constexpr int kPack = Pack<T>::kSize, kUnroll = kRows == 1 ? 8 : kRows == 2 ? 4 : 2;
  const int lane = threadIdx.x % 32;
  const int64_t first = (int64_t{blockIdx.x} * kWarps + threadIdx.x / 32) * (kGated ? 1 : kRows);
  let_next_begin();
  const Pack<T>* w[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t n = min(kGated ? first : first + r, a.outputs - 1);
    int matrix = 0;
    if constexpr (kGated) {
      matrix = r;
    } else {
      while (n >= a.ends[matrix]) ++matrix;
    }
    const int64_t row = kGated || matrix == 0 ? n : n - a.ends[matrix - 1];
    w[r] = reinterpret_cast<const Pack<T>*>(static_cast<const T*>(a.weights[matrix]) + row * a.weight_strides[matrix]);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    for (int pack = 2 * lane; pack < a.packs; pack += 64) prefetch(w[r] + pack);
  await_earlier();
  float sums[kM][kRows] = {};
  for (int begin = lane; begin < a.packs; begin += 32 * kUnroll) {
    Pack<T> values[kUnroll][kRows];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int pack = begin + 32 * u;
        if (pack < a.packs) {
          const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(w[r] + pack));
          values[u][r] = *reinterpret_cast<const Pack<T>*>(&bits);
        }
      }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int pack = begin + 32 * u;
      if (pack >= a.packs) break;
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const Pack<T> x = reinterpret_cast<const Pack<T>*>(static_cast<const T*>(a.x) + m * a.x_stride)[pack];
#pragma unroll
        for (int e = 0; e < kPack; ++e) {
          const float factor = widen<float>(x.at[e]);
#pragma unroll
          for (int r = 0; r < kRows; ++r) sums[m][r] = fmaf(factor, widen<float>(values[u][r].at[e]), sums[m][r]);
        }
      }
    }
  }
  if constexpr (kGated) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const float gate = widen<float>(narrow<T>(warp_sum(sums[m][0]))), up = widen<float>(narrow<T>(warp_sum(sums[m][1])));
      if (lane == m && first < a.outputs)
        static_cast<T*>(a.out)[m * a.out_stride + first] = narrow<T>(gate / (1 + __expf(-gate)) * up);
    }
  } else {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float sum = warp_sum(sums[m][r]);
        const int64_t n = first + r;
        if (lane != m * kRows + r || n >= a.outputs) continue;
        const float biased = a.bias == nullptr ? sum : sum + widen<float>(static_cast<const T*>(a.bias)[n]);
        const int64_t at = m * a.out_stride + n;
        if (a.pre != nullptr) static_cast<T*>(a.pre)[at] = narrow<T>(biased);
        static_cast<T*>(a.out)[at] = narrow<T>(activate(a.activation, biased));
      }
  }
}

template <class T, int kM, int kRows, bool kGated = false>
void launch(Context& cuda, const Gemv& a) {
  const auto blocks = static_cast<unsigned>(ceil_div(a.outputs, kWarps * (kGated ? 1 : kRows)));
  launch_early(cuda, gemv_kernel<T, kM, kRows, kGated>, blocks, 32 * kWarps, a);
}

template <class T>
void launch_gated(Context& cuda, const Gemv& a, int64_t m) {
  switch (m) {
    case 1:
      return launch<T, 1, 2, true>(cuda, a);
    case 2:
      return launch<T, 2, 2, true>(cuda, a);
    case 3:
      return launch<T, 3, 2, true>(cuda, a);
    default:
      return launch<T, 4, 2, true>(cuda, a);
  }
}

template <class T>
void launch_of(Context& cuda, const Gemv& a, int64_t m, bool gated) {
  if (gated) return launch_gated<T>(cuda, a, m);
  // As many warps as fill the GPU come before several outputs for each.
  const int64_t warps = int64_t{16} * cuda.facts.multiprocessors;
  switch (m) {
    case 1:
      if (a.outputs >= 4 * warps) return launch<T, 1, 4>(cuda, a);
      if (a.outputs >= warps) return launch<T, 1, 2>(cuda, a);
      return launch<T, 1, 1>(cuda, a);
    case 2:
      return launch<T, 2, 2>(cuda, a);
    case 3:
      return launch<T, 3, 2>(cuda, a);
    default:
      return launch<T, 4, 2>(cuda, a);
  }
}

bool aligned(const void* data, int64_t stride, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * bytes % 16 == 0;
}

bool run(Context& cuda, const Gemv& a, DType dtype, int64_t m, bool gated = false) {
  switch (dtype) {
    case DType::kF32:
      launch_of<float>(cuda, a, m, gated);
      return true;
    case DType::kBF16:
      launch_of<bf16>(cuda, a, m, gated);
      return true;
    case DType::kF16:
      launch_of<f16>(cuda, a, m, gated);
      return true;
    default:
      return false;
  }
}

}  // namespace

bool gemv(Context& cuda, const Product& p) {
  const DType dtype = p.a.dtype;
  const int64_t bytes = item_size(dtype);
  if (p.m > kMostRows || p.batch != 1 || p.accumulate || p.b.dtype != dtype ||
      p.out.dtype != dtype || (p.bias != nullptr && p.bias_dtype != dtype))
    return false;
  if (p.k * bytes % 16 != 0 || p.k / (16 / bytes) > INT32_MAX / 16 || (p.k > 1 && p.a.column_stride != 1) ||
      (p.k > 1 && p.b.row_stride != 1) || !aligned(p.a.data, p.m == 1 ? 0 : p.a.row_stride, bytes) ||
      !aligned(p.b.data, p.n == 1 ? 0 : p.b.column_stride, bytes))
    return false;
  Gemv a = {};
  a.weights[0] = p.b.data, a.weight_strides[0] = p.b.column_stride, a.ends[0] = p.n;
  a.x = p.a.data, a.x_stride = p.a.row_stride, a.bias = p.bias, a.activation = p.activation;
  a.out = p.out.data, a.pre = p.pre, a.out_stride = p.out.row_stride, a.outputs = p.n;
  a.packs = static_cast<int>(p.k * bytes / 16);
  return run(cuda, a, dtype, p.m);
}

bool gemv_many(Context& cuda, const In& x, const List<In>& weights, const Out& out, bool gated) {
  const int64_t bytes = item_size(x.dtype), m = count_rows(x), k = x.dim(-1);
  const RowMap x_rows = row_map(x), out_rows = row_map(out);
  if (m > kMostRows || weights.size > kMostMatrices || out.dtype != x.dtype || k * bytes % 16 != 0 ||
      k * bytes / 16 > INT32_MAX / 16 || x_rows.rank != 1 || out_rows.rank != 1 ||
      !aligned(x.data, m == 1 ? 0 : x_rows.strides[0], bytes))
    return false;
  Gemv a = {};
  for (int64_t i = 0; i < weights.size; ++i) {
    const In& weight = weights[i];
    if (weight.dtype != x.dtype || !aligned(weight.data, weight.shape[0] == 1 ? 0 : weight.strides[0], bytes))
      return false;
    a.weights[i] = weight.data, a.weight_strides[i] = weight.strides[0];
    a.ends[i] = a.outputs += weight.shape[0];
  }
  a.x = x.data, a.x_stride = x_rows.strides[0], a.activation = Activation::kNone;
  a.out = out.data, a.out_stride = out_rows.strides[0];
  a.packs = static_cast<int>(k * bytes / 16);
  if (gated) a.outputs = weights[0].shape[0];
  return run(cuda, a, x.dtype, m, gated);
}

void CudaKernels::swiglu_linear(const In& x, const In& gate, const In& up, const Out& out) {
  const In weights[] = {gate, up};
  if (gemv_many(cuda_, x, {weights, 2}, out, true)) return;
  Out sides = out;
  sides.data = cuda_.scratch_bytes(static_cast<size_t>(2 * out.size() * item_size(out.dtype)));
  sides.shape[out.rank - 1] *= 2;
  int64_t step = 1;
  for (int axis = out.rank - 1; axis >= 0; step *= sides.shape[axis--]) sides.strides[axis] = step;
  linear_many(x, {weights, 2}, sides);
  In parts[2];
  for (int i = 0; i < 2; ++i) {
    static_cast<View&>(parts[i]) = sides;
    parts[i].shape[out.rank - 1] = out.dim(-1);
    parts[i].data = sides.as<char>() + i * out.dim(-1) * item_size(out.dtype);
  }
  swiglu(parts[0], parts[1], out);
}

void CudaKernels::linear_many(const In& x, const List<In>& weights, const Out& out) {
  if (gemv_many(cuda_, x, weights, out, false)) return;
  int64_t first = 0;
  for (int64_t i = 0; i < weights.size; ++i) {
    View turned = weights[i], part = out;
    std::swap(turned.shape[0], turned.shape[1]);
    std::swap(turned.strides[0], turned.strides[1]);
    part.data = out.as<char>() + first * item_size(out.dtype);
    part.shape[out.rank - 1] = weights[i].shape[0];
    gemm(cuda_, x, turned, part);
    first += weights[i].shape[0];
  }
}

}  // namespace llmeff::cuda
