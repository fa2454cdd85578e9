// unary_grad: dx = dy · f'(x) in one pass, from x alone. The slopes are written so that nothing cancels: 1 − tanh² as
// 1/cosh², 1 − sigmoid(x) as sigmoid(−x).
#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "runs.h"
#include "vector_erf.h"
#include "vector_log.h"
#include "vector_trig.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// Where the slopes of silu and gelu have long been 0 or 1; keeps ∞ · 0 out of them.
template <class T>
LLMEFF_INLINE Vec<T> limited(Vec<T> x) {
  return x > T(1000) ? splat(T(1000)) : (x < T(-1000) ? splat(T(-1000)) : x);
}

template <UnaryOp op, class T>
LLMEFF_INLINE Vec<T> slope(Vec<T> x) {
  if constexpr (op == UnaryOp::kExp || op == UnaryOp::kExpm1) return vexp_full(x);
  if constexpr (op == UnaryOp::kSquare) return x + x;
  if constexpr (op == UnaryOp::kSin) return vcos(x);
  if constexpr (op == UnaryOp::kCos) return -vsin(x);
  if constexpr (op == UnaryOp::kTan) return each_lane<T>(x, [](T v) { return T(1) + std::tan(v) * std::tan(v); });
  if constexpr (op == UnaryOp::kSinh) return each_lane<T>(x, [](T v) { return std::cosh(v); });
  if constexpr (op == UnaryOp::kCosh) return each_lane<T>(x, [](T v) { return std::sinh(v); });
  if constexpr (op == UnaryOp::kErf) return vgaussian(x, T(1)) * T(1.1283791670955126);
  if constexpr (op == UnaryOp::kTanh) return T(4) * logistic_slope<T>(x + x);
  if constexpr (op == UnaryOp::kSigmoid) return logistic_slope<T>(x);
  if constexpr (op == UnaryOp::kSoftplus) return logistic<T>(x).value;
  if constexpr (op == UnaryOp::kSilu) {
    const Vec<T> near = limited<T>(x);
    const Logistic<T> s = logistic<T>(near);
    return s.value * (T(1) + near * s.complement);
  }
  if constexpr (op == UnaryOp::kGelu) {
    const Vec<T> near = limited<T>(x);
    const Logistic<T> s = logistic<T>(gelu_argument<T>(near));
    return s.value * (T(1) + near * s.complement * gelu_argument_slope<T>(near));
  }
  if constexpr (op == UnaryOp::kGeluErf) {
    const Vec<T> near = limited<T>(x);
    return vnormal_cdf(near) + near * vnormal_density<T>(near);
  }
}

template <UnaryOp op, class T>
LLMEFF_INLINE Vec<T> gradient(Vec<T> x, Vec<T> dy) {
  if constexpr (op == UnaryOp::kNeg)
    return -dy;
  else if constexpr (op == UnaryOp::kAbs)
    return x > T(0) ? dy : (x < T(0) ? -dy : x);
  else if constexpr (op == UnaryOp::kRelu)
    return x > T(0) ? dy : Vec<T>{};
  else if constexpr (op == UnaryOp::kLog)
    return dy / x;
  else if constexpr (op == UnaryOp::kLog1p)
    return dy / (T(1) + x);
  else if constexpr (op == UnaryOp::kSqrt)
    return dy * T(0.5) / vsqrt<T>(x);
  else if constexpr (op == UnaryOp::kRsqrt)
    return dy * T(-0.5) / x / vsqrt<T>(x);
  else if constexpr (op == UnaryOp::kReciprocal)
    return -dy / x / x;
  else if constexpr (op == UnaryOp::kAsin)
    return dy / vsqrt<T>((T(1) - x) * (T(1) + x));
  else if constexpr (op == UnaryOp::kAcos)
    return -dy / vsqrt<T>((T(1) - x) * (T(1) + x));
  else if constexpr (op == UnaryOp::kAtan)
    return dy / (T(1) + x * x);
  else
    return dy * slope<op, T>(x);
}

template <UnaryOp op, class T>
void run(const T* x, const T* dy, T* dx, int64_t n) {
  map_vectors(
      n, [](Vec<T> v, Vec<T> d) { return gradient<op, T>(v, d); }, dx, x, dy);
  if constexpr (op == UnaryOp::kSin) patch_beyond_trig_range(x, n, [&](int64_t i) { dx[i] = dy[i] * std::cos(x[i]); });
  if constexpr (op == UnaryOp::kCos) patch_beyond_trig_range(x, n, [&](int64_t i) { dx[i] = -dy[i] * std::sin(x[i]); });
}

template <UnaryOp op>
inline constexpr bool kDifferentiable = (op <= UnaryOp::kSoftplus) && (op != UnaryOp::kIsFinite);

template <class T, int index = 0>
auto run_of(UnaryOp op) -> void (*)(const T*, const T*, T*, int64_t) {
  if constexpr (index < kUnaryOpCount) {
    constexpr UnaryOp kOp = static_cast<UnaryOp>(index);
    if (op != kOp) return run_of<T, index + 1>(op);
    if constexpr (kDifferentiable<kOp>) return run<kOp, T>;
  }
  fail("ERR_INTERNAL", "[unary_grad] operation %d has no gradient", static_cast<int>(op));
}

}  // namespace

void CpuKernels::unary_grad(UnaryOp op, const In& x, const In& dy, const Out& dx) {
  if (x.dtype == DType::kF64)
    map_runs(run_of<double>(op), x, dy, dx);
  else
    map_runs(run_of<float>(op), x, dy, dx);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
