// Cross-entropy of hidden · weightᵀ in blocks of rows: for each block the logits by one matrix product, the loss and,
// in place, its gradient by logits, then dhidden = dlogits · weight and dweight += dlogitsᵀ · hidden. A block holds
// about 8 MB of logits, but at least kMinRows rows, below which the products would spend their time reading the weight.
#include "cpu_kernels.h"
#include "gemm.h"
#include "loss_rows.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kBlockBytes = 8 << 20;
constexpr int64_t kMinRows = 128, kMaxRows = 1024;

template <class T>
void zero(const Out& out) {
  if (out.present()) std::memset(out.data, 0, static_cast<size_t>(out.size()) * sizeof(T));
}

template <class T>
void run(const In& hidden, const In& weight, const int32_t* targets, const LossOptions& options, T* loss, T* stats,
         T* ce, const Out& dhidden, const Out& dweight) {
  const int64_t rows = hidden.shape[0], width = hidden.shape[1], n = weight.shape[0];
  const int64_t valid = count_valid(targets, rows, n, options.ignore_index);
  if (valid == 0) {
    for (int64_t row = 0; row < rows; ++row) ce[row] = 0;
    finish_loss<T>(targets, rows, 0, options, ce, nullptr, loss, stats);
    zero<T>(dhidden);
    zero<T>(dweight);
    return;
  }
  const int64_t fitting = kBlockBytes / (n * static_cast<int64_t>(sizeof(T)));
  const int64_t block = smaller(rows, smaller(kMaxRows, larger(kMinRows, fitting)));
  T* logits = shared_scratch<T>(block * n + rows);
  T* lse = logits + block * n;
  const bool gradient = dhidden.present() || dweight.present();
  const double scale = 1 / static_cast<double>(valid);
  for (int64_t first = 0; first < rows; first += block) {
    const int64_t count = smaller(block, rows - first);
    const T* h = hidden.as<T>() + first * width;
    gemm<T>(count, n, width, h, width, 1, weight.as<T>(), 1, width, logits, n, false);
    parallel_items(count, n, [&](int64_t i, int) {
      const int64_t row = first + i;
      T* z = logits + i * n;
      ce[row] = lse[row] = 0;
      if (targets[row] == options.ignore_index) {
        std::memset(z, 0, static_cast<size_t>(n) * sizeof(T));
        return;
      }
      const RowLoss made = row_loss<T>(z, z, n, targets[row], options);
      ce[row] = static_cast<T>(made.ce);
      lse[row] = static_cast<T>(made.lse);
      if (gradient) row_loss_grad<T>(z, n, targets[row], lse[row], scale, options, z);
    });
    if (dhidden.present())
      gemm<T>(count, width, n, logits, n, 1, weight.as<T>(), width, 1, dhidden.as<T>() + first * width, width, false);
    if (dweight.present()) gemm<T>(n, width, count, logits, 1, n, h, width, 1, dweight.as<T>(), width, first > 0);
  }
  finish_loss(targets, rows, valid, options, ce, lse, loss, stats);
}

}  // namespace

void CpuKernels::linear_cross_entropy(const In& hidden, const In& weight, const In& targets, int64_t ignore_index,
                                      double label_smoothing, double z_loss, double softcap, const Out& loss,
                                      const Out& stats, const Out& ce, const Out& dhidden, const Out& dweight) {
  const LossOptions options{ignore_index, label_smoothing, z_loss, softcap};
  const int32_t* t = targets.as<int32_t>();
  if (hidden.dtype == DType::kF64)
    run<double>(hidden, weight, t, options, loss.as<double>(), stats.as<double>(), ce.as<double>(), dhidden, dweight);
  else
    run<float>(hidden, weight, t, options, loss.as<float>(), stats.as<float>(), ce.as<float>(), dhidden, dweight);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
