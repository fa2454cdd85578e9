// Cross-entropy of logits rows and its gradient; loss_rows.cuh has the formulas.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/loss_rows.cuh"
#include "cuda/kernels/value_checks.h"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256;  // of a row

template <class T, bool kCapped>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(const T* logits, int64_t stride, const int32_t* targets, int n, LossOptions<wide_t<T>> options,
                         ValueCheck check, wide_t<T>* ce, wide_t<T>* lse) {
  const int64_t row = blockIdx.x;
  const int32_t target = targets[row];
  RowLoss<wide_t<T>> loss = {0, 0};
  if (has_target(options, target, n))
    loss = row_loss<kCapped>(logits + row * stride, n, target, options);
  else if (target != options.ignore_index && threadIdx.x == 0)
    check.bad(row, target);
  if (threadIdx.x > 0) return;
  ce[row] = loss.ce;
  lse[row] = loss.lse;
}

template <class T, bool kCapped>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_grad_kernel(const wide_t<T>* dloss, const T* logits, int64_t stride, const int32_t* targets, int n,
                              const wide_t<T>* stats, const wide_t<T>* lse, LossOptions<wide_t<T>> options, T* dlogits,
                              int64_t dstride) {
  using W = wide_t<T>;
  const int64_t row = blockIdx.x;
  const int32_t target = targets[row];
  if (!has_target(options, target, n)) return zero_row<T>(dlogits + row * dstride, n);
  const W scale = *dloss / (stats[2] > 0 ? stats[2] : W{1});
  row_loss_grad<kCapped>(logits + row * stride, n, target, lse[row], scale, options, dlogits + row * dstride);
}

template <class W>
__global__ void __launch_bounds__(1024)
    finish_loss_kernel(const int32_t* targets, int64_t rows, int64_t vocabulary, LossOptions<W> options, double z_loss,
                       const W* ce, const W* lse, W* loss, W* stats) {
  double sums[3] = {};  // of ce, of lse², valid rows
  for (int64_t row = threadIdx.x; row < rows; row += blockDim.x) {
    if (!has_target(options, targets[row], vocabulary)) continue;
    const double l = static_cast<double>(lse[row]);
    sums[0] += static_cast<double>(ce[row]);
    sums[1] += l * l;
    sums[2] += 1;
  }
  row_sums(sums);
  if (threadIdx.x > 0) return;
  const double count = sums[2] > 0 ? sums[2] : 1;
  // Not z_loss · ∞: without the term an infinite lse must not make the loss NaN.
  const double z = z_loss != 0 ? z_loss * sums[1] / count : 0.0;
  *loss = static_cast<W>(sums[0] / count + z);
  stats[0] = static_cast<W>(sums[0] / count);
  stats[1] = static_cast<W>(z);
  stats[2] = static_cast<W>(sums[2]);
}

}  // namespace

void finish_loss(Context& cuda, const int32_t* targets, int64_t rows, int64_t vocabulary, int64_t ignore_index,
                 double z_loss, const View& ce, const View& lse, const View& loss, const View& stats) {
  const auto launch = [&]<class W>(W) {
    finish_loss_kernel<W><<<1, 1024, 0, cuda.stream>>>(targets, rows, vocabulary,
                                                       loss_options<W>(ignore_index, 0, z_loss, 0), z_loss, ce.as<W>(),
                                                       lse.as<W>(), loss.as<W>(), stats.as<W>());
    LLMEFF_LAUNCHED("finish_loss_kernel");
  };
  if (ce.dtype == DType::kF64)
    launch(double{});
  else
    launch(float{});
}

void CudaKernels::cross_entropy(const In& logits, const In& targets, int64_t ignore_index, double label_smoothing,
                                double z_loss, double softcap, const Out& loss, const Out& stats, const Out& ce,
                                const Out& lse) {
  const int n = static_cast<int>(logits.shape[1]);
  with_logits(logits.dtype, softcap, [&]<class T, bool kCapped>() {
    using W = wide_t<T>;
    cross_entropy_kernel<T, kCapped><<<logits.shape[0], loss_threads(n, logits.dtype, kThreads), 0, cuda_.stream>>>(
        logits.as<T>(), logits.strides[0], targets.as<int32_t>(), n,
        loss_options<W>(ignore_index, label_smoothing, z_loss, softcap), check_targets(cuda_, n), ce.as<W>(),
        lse.as<W>());
    LLMEFF_LAUNCHED("cross_entropy_kernel");
  });
  finish_loss(cuda_, targets.as<int32_t>(), logits.shape[0], n, ignore_index, z_loss, ce, lse, loss, stats);
}

void CudaKernels::cross_entropy_grad(const In& dloss, const In& logits, const In& targets, const In& stats,
                                     const In& lse, int64_t ignore_index, double label_smoothing, double z_loss,
                                     double softcap, const Out& dlogits) {
  const int n = static_cast<int>(logits.shape[1]);
  with_logits(logits.dtype, softcap, [&]<class T, bool kCapped>() {
    using W = wide_t<T>;
    cross_entropy_grad_kernel<T, kCapped>
        <<<logits.shape[0], loss_threads(n, logits.dtype, kThreads), 0, cuda_.stream>>>(
            dloss.as<W>(), logits.as<T>(), logits.strides[0], targets.as<int32_t>(), n, stats.as<W>(), lse.as<W>(),
            loss_options<W>(ignore_index, label_smoothing, z_loss, softcap), dlogits.as<T>(), dlogits.strides[0]);
    LLMEFF_LAUNCHED("cross_entropy_grad_kernel");
  });
}

}  // namespace llmeff::cuda
