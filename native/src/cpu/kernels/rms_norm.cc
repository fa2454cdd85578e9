// RMSNorm: y = x·r ∘ g with r = (mean(x²) + eps)^(-1/2) and g = weight + weight_offset. Gradient, with t = dy ∘ g:
//   dx = r·t − x·r³·⟨t, x⟩/C,  dweight = Σ over rows of dy ∘ x·r
#include "cpu_kernels.h"
#include "norm_rows.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
void forward(const In& x, const In& residual, const T* weight, double weight_offset, double eps, const Out& sum,
             const Out& y, T* rstd) {
  const int64_t n = x.dim(-1);
  const Vec<T> offset = splat(static_cast<T>(weight_offset));
  for_each_norm_row<T>(x, residual, sum, y, [&](const T* p, T* out, int64_t row) {
    const double squares = row_sum<T>(n, [p](int64_t i, int64_t part) {
      const Vec<T> v = gather(p + i, 1, part);
      return v * v;
    });
    const T r = static_cast<T>(1 / __builtin_sqrt(squares / static_cast<double>(n) + eps));
    if (rstd != nullptr) rstd[row] = r;
    const Vec<T> scale = splat(r);
    map_vectors(
        n, [scale, offset](Vec<T> v, Vec<T> w) { return v * scale * (w + offset); }, out, p, weight);
  });
}

template <class T>
void backward(const In& dy, const In& dsum, const In& x, const T* weight, double weight_offset, const T* rstd,
              const Out& dx, const Out& dweight) {
  const int64_t n = x.dim(-1);
  const Vec<T> offset = splat(static_cast<T>(weight_offset));
  for_each_norm_grad_row<T>(dy, dsum, x, dx, {&dweight}, [&](const NormGradRow<T>& at, T* const(&sums)[1]) {
    const double dot = row_sum<T>(n, [&](int64_t i, int64_t part) {
      return gather(at.dy + i, 1, part) * (gather(weight + i, 1, part) + offset) * gather(at.x + i, 1, part);
    });
    const double r = static_cast<double>(rstd[at.row]);
    const Vec<T> scale = splat(rstd[at.row]), pull = splat(static_cast<T>(r * r * r * dot / static_cast<double>(n)));
    T* const dw = sums[0];
    each_vector<T>(n, [&](int64_t i, int64_t part) {
      const Vec<T> g = gather(at.dy + i, 1, part), v = gather(at.x + i, 1, part);
      scatter(dw + i, 1, gather(dw + i, 1, part) + g * (v * scale), part);
      const Vec<T> through = g * (gather(weight + i, 1, part) + offset) * scale - v * pull;
      scatter(at.dx + i, 1, through + at.passed_on(i, part), part);
    });
  });
}

}  // namespace

void CpuKernels::rms_norm(const In& x, const In& residual, const In& weight, double weight_offset, double eps,
                          const Out& sum, const Out& y, const Out& rstd) {
  if (x.dtype == DType::kF64)
    forward<double>(x, residual, weight.as<double>(), weight_offset, eps, sum, y, rstd.as<double>());
  else
    forward<float>(x, residual, weight.as<float>(), weight_offset, eps, sum, y, rstd.as<float>());
}

void CpuKernels::rms_norm_grad(const In& dy, const In& dsum, const In& x, const In& weight, double weight_offset,
                               const In& rstd, const Out& dx, const Out& dweight) {
  if (x.dtype == DType::kF64)
    backward<double>(dy, dsum, x, weight.as<double>(), weight_offset, rstd.as<double>(), dx, dweight);
  else
    backward<float>(dy, dsum, x, weight.as<float>(), weight_offset, rstd.as<float>(), dx, dweight);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
