// Cross-entropy of hidden · weightᵀ in blocks of rows, so that the logits of the whole batch never exist: for each
// block the logits by one matrix product, in the dtype of hidden; the loss and, in place, its gradient by logits; then
// dhidden = dlogits · weight and dweight += dlogitsᵀ · hidden, both in float32 (float64).
//
// A block has up to kBlockBytes of logits: every block reads and writes dweight once, so that few large blocks are
// better, and the products of at least a few thousand rows run at full speed. The kernel between the products reads a
// row from memory for the loss, and again, from the cache, for the gradient.
//
// The gradient by logits is of the order of 1 / rows, too small for float16: there it is multiplied by kHalfScale
// instead of being divided by the number of valid rows, and dhidden and dweight are put right at the end.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/loss_rows.cuh"
#include "cuda/kernels/value_checks.h"

namespace llmeff::cuda {
namespace {

// Of a row: with more rows at a time they wouldn't still be in the cache for the gradient.
constexpr int kThreads = 512;
constexpr int64_t kBlockBytes = int64_t{896} << 20;
constexpr double kHalfScale = 256;

__global__ void __launch_bounds__(1024)
    count_targets_kernel(const int32_t* targets, int64_t rows, int64_t vocabulary, LossOptions<double> options,
                         ValueCheck check, double* valid) {
  double sums[1] = {};
  for (int64_t row = threadIdx.x; row < rows; row += blockDim.x) {
    const int32_t target = targets[row];
    if (has_target(options, target, vocabulary))
      sums[0] += 1;
    else if (target != options.ignore_index)
      check.bad(row, target);
  }
  row_sums(sums);
  if (threadIdx.x == 0) *valid = sums[0];
}

// Rows of one block; dlogits take the place of the logits.
template <class T, bool kCapped>
__global__ void __launch_bounds__(kThreads)
    loss_and_grad_kernel(T* logits, int64_t stride, const int32_t* targets, int n, LossOptions<wide_t<T>> options,
                         const double* valid, bool gradient, wide_t<T>* ce, wide_t<T>* lse) {
  using W = wide_t<T>;
  const int64_t row = blockIdx.x;
  const int32_t target = targets[row];
  T* const z = logits + row * stride;
  const bool counts = has_target(options, target, n);
  RowLoss<W> loss = {0, 0};
  if (counts) loss = row_loss<kCapped>(z, n, target, options);
  if (threadIdx.x == 0) {
    ce[row] = loss.ce;
    lse[row] = loss.lse;
  }
  if (!gradient) return;
  __syncthreads();  // everybody has read the target's logit
  if (!counts) return zero_row<T>(z, n);
  const W scale = static_cast<W>(__is_same(T, f16) ? kHalfScale : 1.0 / *valid);
  row_loss_grad<kCapped>(z, n, target, loss.lse, scale, options, z);
}

__global__ void put_right_kernel(float* x, int64_t count, const double* valid) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) x[i] *= static_cast<float>(1.0 / (kHalfScale * (*valid > 0 ? *valid : 1.0)));
}

View matrix(void* data, DType dtype, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride) {
  View v;
  v.data = data;
  v.dtype = dtype;
  v.rank = 2;
  v.shape[0] = rows, v.shape[1] = columns;
  v.strides[0] = row_stride, v.strides[1] = column_stride;
  return v;
}

}  // namespace

void CudaKernels::linear_cross_entropy(const In& hidden, const In& weight, const In& targets, int64_t ignore_index,
                                       double label_smoothing, double z_loss, double softcap, const Out& loss,
                                       const Out& stats, const Out& ce, const Out& dhidden, const Out& dweight) {
  const int64_t rows = hidden.shape[0], width = hidden.shape[1], n = weight.shape[0];
  const int32_t* const ids = targets.as<int32_t>();
  double* const valid = cuda_.scratch<double>(1);
  count_targets_kernel<<<1, 1024, 0, cuda_.stream>>>(ids, rows, n, loss_options<double>(ignore_index, 0, 0, 0),
                                                     check_targets(cuda_, n), valid);
  LLMEFF_LAUNCHED("count_targets_kernel");
  with_logits(hidden.dtype, softcap, [&]<class T, bool kCapped>() {
    using W = wide_t<T>;
    constexpr int64_t kSize = sizeof(T);
    const int64_t stride = round_up(n, 16 / kSize);
    const int64_t fitting = std::max<int64_t>(128, kBlockBytes / (stride * kSize) / 128 * 128);
    const int64_t block = std::min(rows, round_up(ceil_div(rows, ceil_div(rows, fitting)), 128));
    T* const logits = cuda_.scratch<T>(block * stride);
    W* const lse = cuda_.scratch<W>(rows);
    const bool gradient = dhidden.present() || dweight.present();
    const auto options = loss_options<W>(ignore_index, label_smoothing, z_loss, softcap);
    for (int64_t first = 0; first < rows; first += block) {
      const int64_t count = std::min(block, rows - first);
      const View h = matrix(hidden.as<T>() + first * width, hidden.dtype, count, width, width, 1);
      const View z = matrix(logits, hidden.dtype, count, n, stride, 1);
      gemm(cuda_, h, matrix(weight.data, weight.dtype, width, n, 1, width), z);
      loss_and_grad_kernel<T, kCapped><<<count, loss_threads(n, hidden.dtype, kThreads), 0, cuda_.stream>>>(
          logits, stride, ids + first, static_cast<int>(n), options, valid, gradient, ce.as<W>() + first, lse + first);
      LLMEFF_LAUNCHED("loss_and_grad_kernel");
      if (dhidden.present())
        gemm(cuda_, z, matrix(weight.data, weight.dtype, n, width, width, 1),
             matrix(dhidden.as<W>() + first * width, dhidden.dtype, count, width, width, 1));
      if (dweight.present())
        gemm(cuda_, matrix(logits, hidden.dtype, n, count, 1, stride), h,
             matrix(dweight.data, dweight.dtype, n, width, width, 1), {.accumulate = first > 0});
    }
    if constexpr (__is_same(T, f16)) {
      for (const Out* out : {&dhidden, &dweight}) {
        if (!out->present()) continue;
        put_right_kernel<<<ceil_div(out->size(), 256), 256, 0, cuda_.stream>>>(out->as<float>(), out->size(), valid);
        LLMEFF_LAUNCHED("put_right_kernel");
      }
    }
    View rows_lse = ce;
    rows_lse.data = lse;
    finish_loss(cuda_, ids, rows, n, ignore_index, z_loss, ce, rows_lse, loss, stats);
  });
}

}  // namespace llmeff::cuda
