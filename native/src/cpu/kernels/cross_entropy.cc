// Cross-entropy of logits rows and its gradient; loss_rows.h has the formulas. Ignored rows get ce = lse = 0 and no
// gradient.
#include "cpu_kernels.h"
#include "loss_rows.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
void forward(const In& logits, const int32_t* targets, const LossOptions& options, T* loss, T* stats, T* ce, T* lse) {
  const int64_t rows = logits.shape[0], n = logits.shape[1];
  const int64_t valid = count_valid(targets, rows, n, options.ignore_index);
  parallel_items(rows, n, [&](int64_t row, int) {
    ce[row] = lse[row] = 0;
    if (targets[row] == options.ignore_index) return;
    const T* const x = logits.as<T>() + row * logits.strides[0];
    const RowLoss made = row_loss(x, row + 1 < rows ? x + logits.strides[0] : x, n, targets[row], options);
    ce[row] = static_cast<T>(made.ce);
    lse[row] = static_cast<T>(made.lse);
  });
  finish_loss(targets, rows, valid, options, ce, lse, loss, stats);
}

template <class T>
void backward(T dloss, const In& logits, const int32_t* targets, const T* stats, const T* lse,
              const LossOptions& options, const Out& dlogits) {
  const int64_t rows = logits.shape[0], n = logits.shape[1];
  const double scale = static_cast<double>(dloss) / (stats[2] > 0 ? static_cast<double>(stats[2]) : 1.0);
  parallel_items(rows, n, [&](int64_t row, int) {
    T* d = dlogits.as<T>() + row * dlogits.strides[0];
    if (targets[row] == options.ignore_index)
      std::memset(d, 0, static_cast<size_t>(n) * sizeof(T));
    else
      row_loss_grad(logits.as<T>() + row * logits.strides[0], n, targets[row], lse[row], scale, options, d);
  });
}

}  // namespace

void CpuKernels::cross_entropy(const In& logits, const In& targets, int64_t ignore_index, double label_smoothing,
                               double z_loss, double softcap, const Out& loss, const Out& stats, const Out& ce,
                               const Out& lse) {
  const LossOptions options{ignore_index, label_smoothing, z_loss, softcap};
  const int32_t* t = targets.as<int32_t>();
  if (logits.dtype == DType::kF64)
    forward(logits, t, options, loss.as<double>(), stats.as<double>(), ce.as<double>(), lse.as<double>());
  else
    forward(logits, t, options, loss.as<float>(), stats.as<float>(), ce.as<float>(), lse.as<float>());
}

void CpuKernels::cross_entropy_grad(const In& dloss, const In& logits, const In& targets, const In& stats,
                                    const In& lse, int64_t ignore_index, double label_smoothing, double z_loss,
                                    double softcap, const Out& dlogits) {
  const LossOptions options{ignore_index, label_smoothing, z_loss, softcap};
  const int32_t* t = targets.as<int32_t>();
  if (logits.dtype == DType::kF64)
    backward(*dloss.as<double>(), logits, t, stats.as<double>(), lse.as<double>(), options, dlogits);
  else
    backward(*dloss.as<float>(), logits, t, stats.as<float>(), lse.as<float>(), options, dlogits);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
