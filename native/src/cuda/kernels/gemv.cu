// out[m, n] = activation(Σ_k x[m, k] · w[n, k] + bias[n]) for few rows m. A warp has kRows neighbouring outputs: its
// lanes go through the rows of the weights side by side, 16 bytes each, with several loads on their way; then they add
// up. Several matrices of the same x are one launch, their outputs side by side; or, of two, silu of the one times the
// other, for which a warp has an output of each. The RMS norm of x costs no pass of its own: its weights multiply x on
// the way, and the sum of squares, which every warp adds up, the outputs. Nor does a residual that is added to these.
#include "cuda/kernels/gemv.h"

#include <algorithm>

#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kWarps = 4, kMostMatrices = 8, kMostRows = 8;

struct Gemv {
  const void* weights[kMostMatrices];
  int64_t weight_strides[kMostMatrices];
  int64_t ends[kMostMatrices];             // of their outputs
  const void *x, *bias, *norm, *residual;  // the last three may be null
  void *out, *pre;                         // laid out alike; pre may be null
  int64_t x_stride, out_stride, residual_stride, outputs;
  int rows, packs;  // packs of 16 bytes in a row
  Activation activation;
  float norm_offset, eps;
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
  float sums[kM][kRows] = {}, squares[kM] = {};
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
      Pack<T> norm;
      if (a.norm != nullptr) norm = static_cast<const Pack<T>*>(a.norm)[pack];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const int row = kM == 1 ? 0 : min(m, a.rows - 1);
        const Pack<T> x = reinterpret_cast<const Pack<T>*>(static_cast<const T*>(a.x) + row * a.x_stride)[pack];
#pragma unroll
        for (int e = 0; e < kPack; ++e) {
          float factor = widen<float>(x.at[e]);
          if (a.norm != nullptr) {
            squares[m] = fmaf(factor, factor, squares[m]);
            factor *= widen<float>(norm.at[e]) + a.norm_offset;
          }
#pragma unroll
          for (int r = 0; r < kRows; ++r) sums[m][r] = fmaf(factor, widen<float>(values[u][r].at[e]), sums[m][r]);
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    const float mean = a.norm == nullptr ? 0 : warp_sum(squares[m]) / static_cast<float>(a.packs * kPack);
    const float scale = a.norm == nullptr ? 1 : 1 / sqrtf(mean + a.eps);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[m][r] = warp_sum(sums[m][r]) * scale;
  }
  if constexpr (kGated) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const float gate = widen<float>(narrow<T>(sums[m][0])), up = widen<float>(narrow<T>(sums[m][1]));
      if (lane == m && m < a.rows && first < a.outputs)
        static_cast<T*>(a.out)[m * a.out_stride + first] = narrow<T>(gate / (1 + __expf(-gate)) * up);
    }
  } else {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float sum = sums[m][r];
        const int64_t n = first + r;
        if (lane != m * kRows + r || m >= a.rows || n >= a.outputs) continue;
        const float biased = a.bias == nullptr ? sum : sum + widen<float>(static_cast<const T*>(a.bias)[n]);
        const int64_t at = m * a.out_stride + n;
        if (a.pre != nullptr) static_cast<T*>(a.pre)[at] = narrow<T>(biased);
        const T result = narrow<T>(activate(a.activation, biased));
        static_cast<T*>(a.out)[at] =
            a.residual == nullptr
                ? result
                : narrow<T>(widen<float>(static_cast<const T*>(a.residual)[m * a.residual_stride + n]) +
                            widen<float>(result));
      }
  }
}

template <class T, int kM, int kRows, bool kGated = false>
void launch(Context& cuda, const Gemv& a) {
  const auto blocks = static_cast<unsigned>(ceil_div(a.outputs, kWarps * (kGated ? 1 : kRows)));
  launch_early(cuda, gemv_kernel<T, kM, kRows, kGated>, blocks, 32 * kWarps, a);
}

template <class T, int kM>
void launch_rows(Context& cuda, const Gemv& a, bool gated) {
  if (gated) return launch<T, kM, 2, true>(cuda, a);
  if constexpr (kM == 1) {
    // As many warps as fill the GPU come before several outputs for each.
    const int64_t warps = int64_t{16} * cuda.facts.multiprocessors;
    if (a.outputs >= 4 * warps) return launch<T, 1, 4>(cuda, a);
    if (a.outputs < warps) return launch<T, 1, 1>(cuda, a);
  }
  launch<T, kM, 2>(cuda, a);
}

template <class T>
void launch_of(Context& cuda, const Gemv& a, bool gated) {
  if (a.rows == 1) return launch_rows<T, 1>(cuda, a, gated);
  if (a.rows == 2) return launch_rows<T, 2>(cuda, a, gated);
  if (a.rows <= 4) return launch_rows<T, 4>(cuda, a, gated);
  launch_rows<T, 8>(cuda, a, gated);
}

bool aligned(const void* data, int64_t stride, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * bytes % 16 == 0;
}

bool run(Context& cuda, const Gemv& a, DType dtype, bool gated) {
  switch (dtype) {
    case DType::kF32:
      launch_of<float>(cuda, a, gated);
      return true;
    case DType::kBF16:
      launch_of<bf16>(cuda, a, gated);
      return true;
    case DType::kF16:
      launch_of<f16>(cuda, a, gated);
      return true;
    default:
      return false;
  }
}

}  // namespace

bool gemv(Context& cuda, const Product& p) {
  const DType dtype = p.a.dtype;
  const int64_t bytes = item_size(dtype);
  if (p.m > kMostRows || p.batch != 1 || p.accumulate || p.b.dtype != dtype || p.out.dtype != dtype ||
      (p.bias != nullptr && p.bias_dtype != dtype))
    return false;
  if (p.k * bytes % 16 != 0 || p.k > INT32_MAX / 16 || (p.k > 1 && p.a.column_stride != 1) ||
      (p.k > 1 && p.b.row_stride != 1) || !aligned(p.a.data, p.m == 1 ? 0 : p.a.row_stride, bytes) ||
      !aligned(p.b.data, p.n == 1 ? 0 : p.b.column_stride, bytes))
    return false;
  Gemv a = {};
  a.weights[0] = p.b.data, a.weight_strides[0] = p.b.column_stride, a.ends[0] = a.outputs = p.n;
  a.x = p.a.data, a.x_stride = p.a.row_stride, a.bias = p.bias, a.activation = p.activation;
  a.out = p.out.data, a.pre = p.pre, a.out_stride = p.out.row_stride;
  a.rows = static_cast<int>(p.m), a.packs = static_cast<int>(p.k * bytes / 16);
  return run(cuda, a, dtype, false);
}

bool gemv_many(Context& cuda, const View& x, const FewRows& given, const List<In>& weights, const View& out) {
  const int64_t bytes = item_size(x.dtype), m = count_rows(x), k = x.dim(-1);
  const RowMap x_rows = row_map(x), out_rows = row_map(out), residual_rows = row_map(given.residual);
  if (m > kMostRows || weights.size > kMostMatrices || out.dtype != x.dtype || k * bytes % 16 != 0 ||
      k > INT32_MAX / 16 || x_rows.rank != 1 || out_rows.rank != 1 || residual_rows.rank != 1 ||
      !aligned(x.data, m == 1 ? 0 : x_rows.strides[0], bytes) || !rows_aligned({&given.norm}))
    return false;
  Gemv a = {};
  for (int64_t i = 0; i < weights.size; ++i) {
    const In& weight = weights[i];
    if (weight.dtype != x.dtype || !aligned(weight.data, weight.shape[0] == 1 ? 0 : weight.strides[0], bytes))
      return false;
    a.weights[i] = weight.data, a.weight_strides[i] = weight.strides[0];
    a.ends[i] = a.outputs += weight.shape[0];
  }
  if (given.gated) a.outputs = weights[0].shape[0];
  a.x = x.data, a.x_stride = x_rows.strides[0], a.activation = Activation::kNone;
  a.norm = given.norm.data, a.norm_offset = static_cast<float>(given.norm_offset),
  a.eps = static_cast<float>(given.eps);
  a.residual = given.residual.data, a.residual_stride = residual_rows.strides[0];
  a.out = out.data, a.out_stride = out_rows.strides[0];
  a.rows = static_cast<int>(m), a.packs = static_cast<int>(k * bytes / 16);
  return run(cuda, a, x.dtype, given.gated);
}

namespace {

View packed(void* data, const View& like) {
  View view = like;
  view.data = data;
  int64_t step = 1;
  for (int axis = view.rank - 1; axis >= 0; step *= view.shape[axis--]) view.strides[axis] = step;
  return view;
}

View scratch_like(Context& cuda, const View& like) {
  return packed(cuda.scratch_bytes(static_cast<size_t>(like.size() * item_size(like.dtype))), like);
}

View transposed(const View& weight) {
  View turned = weight;
  std::swap(turned.shape[0], turned.shape[1]);
  std::swap(turned.strides[0], turned.strides[1]);
  return turned;
}

}  // namespace

void CudaKernels::linear_many(const In& x, const In& norm, double norm_offset, double eps, const List<In>& weights,
                              const Out& out) {
  if (gemv_many(cuda_, x, {.norm = norm, .norm_offset = norm_offset, .eps = eps}, weights, out)) return;
  View input = x;
  if (norm.present()) {
    input = scratch_like(cuda_, x);
    rms_norm(x, In{}, norm, norm_offset, eps, Out{}, Out{input}, Out{});
  }
  int64_t first = 0;
  for (int64_t i = 0; i < weights.size; ++i) {
    View part = out;
    part.data = out.as<char>() + first * item_size(out.dtype);
    part.shape[out.rank - 1] = weights[i].shape[0];
    gemm(cuda_, input, transposed(weights[i]), part);
    first += weights[i].shape[0];
  }
}

void CudaKernels::linear_add(const In& x, const In& weight, const In& residual, const Out& out) {
  if (gemv_many(cuda_, x, {.residual = residual}, {&weight, 1}, out)) return;
  gemm(cuda_, x, transposed(weight), out);
  binary(BinaryOp::kAdd, residual, In{out}, out);
}

void CudaKernels::swiglu_linear(const In& x, const In& norm, double norm_offset, double eps, const In& gate,
                                const In& up, const Out& out) {
  const In weights[] = {gate, up};
  const List<In> both = {weights, 2};
  if (gemv_many(cuda_, x, {.norm = norm, .norm_offset = norm_offset, .eps = eps, .gated = true}, both, out)) return;
  View sides = out;
  sides.shape[out.rank - 1] *= 2;
  sides = scratch_like(cuda_, sides);
  linear_many(x, norm, norm_offset, eps, both, Out{sides});
  View parts[] = {sides, sides};
  parts[0].shape[out.rank - 1] = parts[1].shape[out.rank - 1] = out.dim(-1);
  parts[1].data = sides.as<char>() + out.dim(-1) * item_size(out.dtype);
  swiglu(In{parts[0]}, In{parts[1]}, out);
}

}  // namespace llmeff::cuda
