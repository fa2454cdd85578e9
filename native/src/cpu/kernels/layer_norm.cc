// Layer norm: y = x̂ ∘ weight + bias with x̂ = (x − mean)·r, r = (variance + eps)^(-1/2). Gradient, with t = dy ∘ weight:
//   dx = r·(t − mean(t) − x̂·mean(t ∘ x̂)),  dweight = Σ over rows of dy ∘ x̂,  dbias = Σ over rows of dy
//
// The mean as a number of T is off by half its last digit, which may be much where it is large beside the deviation.
// Therefore both passes subtract it first, which is almost exact, and then the mean of what is left.
#include "cpu_kernels.h"
#include "norm_rows.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
struct Statistics {
  T shift, rest, rstd;  // the mean is shift + rest
};

template <class T>
LLMEFF_INLINE Statistics<T> statistics(const T* p, int64_t n, double eps) {
  const double count = static_cast<double>(n);
  const T shift =
      static_cast<T>(row_sum<T>(n, [p](int64_t i, int64_t part) { return gather(p + i, 1, part); }) / count);
  double sums[2];
  row_sums<T>(n, sums, [p, by = splat(shift)](int64_t i, int64_t part, Vec<T>(&terms)[2]) {
    terms[0] = gather(p + i, 1, part) - by;
    terms[1] = terms[0] * terms[0];
  });
  const double rest = sums[0] / count, variance = sums[1] / count - rest * rest;
  return {shift, static_cast<T>(rest), static_cast<T>(1 / __builtin_sqrt((variance < 0 ? 0 : variance) + eps))};
}

// A row of weights, or of ones.
template <class T>
LLMEFF_INLINE Vec<T> weight_at(const T* weight, int64_t i, int64_t part) {
  return weight == nullptr ? splat(T(1)) : gather(weight + i, 1, part);
}

template <class T>
void forward(const In& x, const In& residual, const T* weight, const T* bias, double eps, const Out& sum, const Out& y,
             T* mean, T* rstd) {
  const int64_t n = x.dim(-1);
  for_each_norm_row<T>(x, residual, sum, y, [&](const T* p, T* out, int64_t row) {
    const Statistics<T> s = statistics(p, n, eps);
    if (mean != nullptr) mean[row] = s.shift + s.rest;
    if (rstd != nullptr) rstd[row] = s.rstd;
    const Vec<T> shift = splat(s.shift), rest = splat(s.rest), scale = splat(s.rstd);
    each_vector<T>(n, [&](int64_t i, int64_t part) {
      const Vec<T> v = (gather(p + i, 1, part) - shift - rest) * scale * weight_at(weight, i, part);
      scatter(out + i, 1, bias == nullptr ? v : v + gather(bias + i, 1, part), part);
    });
  });
}

template <class T>
void backward(const In& dy, const In& dsum, const In& x, const T* weight, const T* mean, const T* rstd, const Out& dx,
              const Out& dweight, const Out& dbias) {
  const int64_t n = x.dim(-1);
  const double count = static_cast<double>(n);
  for_each_norm_grad_row<T>(dy, dsum, x, dx, {&dweight, &dbias}, [&](const NormGradRow<T>& at, T* const(&sums)[2]) {
    const Vec<T> shift = splat(mean[at.row]), scale = splat(rstd[at.row]);
    const auto shifted = [&](int64_t i, int64_t part) { return (gather(at.x + i, 1, part) - shift) * scale; };
    double totals[3];
    row_sums<T>(n, totals, [&](int64_t i, int64_t part, Vec<T>(&terms)[3]) {
      terms[0] = shifted(i, part);
      terms[1] = gather(at.dy + i, 1, part) * weight_at(weight, i, part);
      terms[2] = terms[0] * terms[1];
    });
    const double left = totals[0] / count, t = totals[1] / count;
    const Vec<T> rest = splat(static_cast<T>(left)), mean_t = splat(static_cast<T>(t)),
                 pull = splat(static_cast<T>(totals[2] / count - left * t));
    T *const dw = sums[0], *const db = sums[1];
    const bool with_weight = dweight.present(), with_bias = dbias.present();
    each_vector<T>(n, [&](int64_t i, int64_t part) {
      const Vec<T> g = gather(at.dy + i, 1, part), hat = shifted(i, part) - rest;
      if (with_weight) scatter(dw + i, 1, gather(dw + i, 1, part) + g * hat, part);
      if (with_bias) scatter(db + i, 1, gather(db + i, 1, part) + g, part);
      const Vec<T> through = (g * weight_at(weight, i, part) - mean_t - hat * pull) * scale;
      scatter(at.dx + i, 1, through + at.passed_on(i, part), part);
    });
  });
}

}  // namespace

void CpuKernels::layer_norm(const In& x, const In& residual, const In& weight, const In& bias, double eps,
                            const Out& sum, const Out& y, const Out& mean, const Out& rstd) {
  if (x.dtype == DType::kF64)
    forward<double>(x, residual, weight.as<double>(), bias.as<double>(), eps, sum, y, mean.as<double>(),
                    rstd.as<double>());
  else
    forward<float>(x, residual, weight.as<float>(), bias.as<float>(), eps, sum, y, mean.as<float>(), rstd.as<float>());
}

void CpuKernels::layer_norm_grad(const In& dy, const In& dsum, const In& x, const In& weight, const In& mean,
                                 const In& rstd, const Out& dx, const Out& dweight, const Out& dbias) {
  if (x.dtype == DType::kF64)
    backward<double>(dy, dsum, x, weight.as<double>(), mean.as<double>(), rstd.as<double>(), dx, dweight, dbias);
  else
    backward<float>(dy, dsum, x, weight.as<float>(), mean.as<float>(), rstd.as<float>(), dx, dweight, dbias);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
