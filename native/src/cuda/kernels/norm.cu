// RMS norm and layer norm over the last axis, forward (norm_grad.cu has the gradients).
//
//   rms:    y = x·r ∘ (weight + offset),  r = (mean(x²) + eps)^(-1/2)
//   layer:  y = (x − mean)·r ∘ weight + bias,  r = (variance + eps)^(-1/2)
//
// A row is read once, with 16-byte loads, into the registers of its threads (kKept packs each), summed up and written.
// With a residual it is x + residual, rounded to the dtype, that is written to `sum` and normed. Rows too long for the
// registers are read again (kKept = 0).
//
// Layer norm subtracts the mean twice: first the mean as a number of W, which is off by its rounding, then the mean of
// what is left. So a mean that is large beside the deviation costs no digits.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/norm_rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256;  // of a block at most; four of them on a multiprocessor have enough loads under way

struct Norm {
  const void *x, *residual, *weight, *bias;
  void *sum, *y, *mean, *rstd;
  RowMap x_rows, residual_rows, sum_rows, y_rows;
  int64_t rows;
  int n;
  double weight_offset, eps;
};

template <class T, int kPack, int kKept, bool kCentred>
__global__ void __launch_bounds__(kThreads, sizeof(T) > 4 ? 3 : 4) norm_kernel(const __grid_constant__ Norm a) {
  using W = wide_t<T>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  let_next_begin();
  await_earlier();
  if (row >= a.rows) return;
  const T* const x = static_cast<const T*>(a.x) + a.x_rows(row);
  const T* const residual = a.residual == nullptr ? nullptr : static_cast<const T*>(a.residual) + a.residual_rows(row);
  T* const sum = residual == nullptr ? nullptr : static_cast<T*>(a.sum) + a.sum_rows(row);

  constexpr int kGroups = kKept > 0 ? kKept : 1;
  Group<T, kPack> kept[kGroups];
  if constexpr (kKept > 0) each_group<kPack, kKept>(a.n, [&](int i, int k) { kept[k] = load_group<kPack>(x + i); });
  if (residual != nullptr) {
    // All loads before the first store, which might be to the same memory for all the compiler knows.
    Group<T, kPack> others[kGroups];
    if constexpr (kKept > 0)
      each_group<kPack, kKept>(a.n, [&](int i, int k) { others[k] = load_group<kPack>(residual + i); });
    each_group<kPack, kKept>(a.n, [&](int i, int k) {
      if constexpr (kKept == 0) {
        kept[k] = load_group<kPack>(x + i);
        others[k] = load_group<kPack>(residual + i);
      }
#pragma unroll
      for (int e = 0; e < kPack; ++e) kept[k].at[e] = narrow<T>(widen<W>(kept[k].at[e]) + widen<W>(others[k].at[e]));
      store_group(sum + i, kept[k]);
    });
  }
  // body(i, elements) for every group of the row.
  const auto each = [&](auto&& body) {
    each_group<kPack, kKept>(a.n, [&](int i, int k) {
      if constexpr (kKept == 0) kept[k] = load_group<kPack>((residual == nullptr ? x : sum) + i);
      body(i, kept[k]);
    });
  };

  const W count = static_cast<W>(a.n);
  W shift = 0, rest = 0, square;
  if constexpr (kCentred) {
    W total[1] = {};
    each([&](int, const Group<T, kPack>& v) {
#pragma unroll
      for (int e = 0; e < kPack; ++e) total[0] += widen<W>(v.at[e]);
    });
    row_sums(total);
    shift = total[0] / count;
    W totals[2] = {};
    each([&](int, const Group<T, kPack>& v) {
#pragma unroll
      for (int e = 0; e < kPack; ++e) {
        const W d = widen<W>(v.at[e]) - shift;
        totals[0] += d;
        totals[1] += d * d;
      }
    });
    row_sums(totals);
    rest = totals[0] / count;
    square = totals[1] / count - rest * rest;
    if (square < 0) square = 0;
  } else {
    W total[1] = {};
    each([&](int, const Group<T, kPack>& v) {
#pragma unroll
      for (int e = 0; e < kPack; ++e) {
        const W d = widen<W>(v.at[e]);
        total[0] += d * d;
      }
    });
    row_sums(total);
    square = total[0] / count;
  }
  const W rstd = W{1} / sqrt(square + static_cast<W>(a.eps));
  if (threadIdx.x == 0) {
    if (a.rstd != nullptr) static_cast<W*>(a.rstd)[row] = rstd;
    if (kCentred && a.mean != nullptr) static_cast<W*>(a.mean)[row] = shift + rest;
  }

  T* const y = static_cast<T*>(a.y) + a.y_rows(row);
  const T* const weight = static_cast<const T*>(a.weight);
  const T* const bias = static_cast<const T*>(a.bias);
  const W offset = static_cast<W>(a.weight_offset);
  each([&](int i, const Group<T, kPack>& v) {
    Group<T, kPack> w, b, out;
    if (weight != nullptr) w = load_group<kPack>(weight + i);
    if (kCentred && bias != nullptr) b = load_group<kPack>(bias + i);
#pragma unroll
    for (int e = 0; e < kPack; ++e) {
      W value = kCentred ? (widen<W>(v.at[e]) - shift - rest) * rstd : widen<W>(v.at[e]) * rstd;
      if (weight != nullptr) value *= widen<W>(w.at[e]) + offset;
      if (kCentred && bias != nullptr) value += widen<W>(b.at[e]);
      out.at[e] = narrow<T>(value);
    }
    store_group(y + i, out);
  });
}

template <bool kCentred>
void launch_norm(Context& cuda, const In& x, const In& residual, const In& weight, const In& bias, double weight_offset,
                 double eps, const Out& sum, const Out& y, const Out& mean, const Out& rstd) {
  Norm a = {};
  a.x = x.data, a.residual = residual.data, a.weight = weight.data, a.bias = bias.data;
  a.sum = sum.data, a.y = y.data, a.mean = mean.data, a.rstd = rstd.data;
  a.x_rows = row_map(x), a.y_rows = row_map(y);
  if (residual.present()) a.residual_rows = row_map(residual), a.sum_rows = row_map(sum);
  a.rows = count_rows(x);
  a.n = static_cast<int>(x.dim(-1));
  a.weight_offset = weight_offset, a.eps = eps;
  const bool aligned = rows_aligned({&x, &residual, &weight, &bias, &sum, &y});
  with_floating(x.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    with_row_shape<T>(a.n, aligned, kThreads, [&]<int kPack, int kKept>(const RowThreads& threads) {
      const auto blocks = static_cast<unsigned>(ceil_div(a.rows, threads.block.y));
      launch_early(cuda, norm_kernel<T, kPack, kKept, kCentred>, blocks, threads.block, 0, a);
    });
  });
}

}  // namespace

void CudaKernels::rms_norm(const In& x, const In& residual, const In& weight, double weight_offset, double eps,
                           const Out& sum, const Out& y, const Out& rstd) {
  launch_norm<false>(cuda_, x, residual, weight, {}, weight_offset, eps, sum, y, {}, rstd);
}

void CudaKernels::layer_norm(const In& x, const In& residual, const In& weight, const In& bias, double eps,
                             const Out& sum, const Out& y, const Out& mean, const Out& rstd) {
  launch_norm<true>(cuda_, x, residual, weight, bias, 0, eps, sum, y, mean, rstd);
}

}  // namespace llmeff::cuda
