// unary: each function is written once, on vectors.
#include "activation.h"
#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "runs.h"
#include "vector_log.h"
#include "vector_trig.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <UnaryOp op, class T>
LLMEFF_INLINE Vec<T> apply(Vec<T> x) {
  if constexpr (op == UnaryOp::kNeg) return (Vec<T>)-wrapping(x);
  if constexpr (op == UnaryOp::kAbs) return vabs<T>(x);
  if constexpr (op == UnaryOp::kSquare) return (Vec<T>)(wrapping(x) * wrapping(x));
  if constexpr (op == UnaryOp::kSign) return x > T(0) ? splat(T(1)) : (x < T(0) ? splat(T(-1)) : x);
  if constexpr (op == UnaryOp::kExp) return vexp_full(x);
  if constexpr (op == UnaryOp::kExpm1) return vexpm1(x);
  if constexpr (op == UnaryOp::kLog) return vlog(x);
  if constexpr (op == UnaryOp::kLog1p) return vlog1p(x);
  if constexpr (op == UnaryOp::kSoftplus) return vsoftplus<T>(x);
  if constexpr (op == UnaryOp::kSqrt) return vsqrt<T>(x);
  if constexpr (op == UnaryOp::kRsqrt) return T(1) / vsqrt<T>(x);
  if constexpr (op == UnaryOp::kReciprocal) return T(1) / x;
  if constexpr (op == UnaryOp::kSin) return vsin(x);
  if constexpr (op == UnaryOp::kCos) return vcos(x);
  if constexpr (op == UnaryOp::kTan) return each_lane<T>(x, [](T v) { return std::tan(v); });
  if constexpr (op == UnaryOp::kAsin) return each_lane<T>(x, [](T v) { return std::asin(v); });
  if constexpr (op == UnaryOp::kAcos) return each_lane<T>(x, [](T v) { return std::acos(v); });
  if constexpr (op == UnaryOp::kAtan) return each_lane<T>(x, [](T v) { return std::atan(v); });
  if constexpr (op == UnaryOp::kSinh) return each_lane<T>(x, [](T v) { return std::sinh(v); });
  if constexpr (op == UnaryOp::kCosh) return each_lane<T>(x, [](T v) { return std::cosh(v); });
  if constexpr (op == UnaryOp::kTanh) return vtanh(x);
  if constexpr (op == UnaryOp::kErf) return verf(x);
  if constexpr (op == UnaryOp::kSigmoid) return logistic<T>(x).value;
  if constexpr (op == UnaryOp::kSilu) return vsilu<T>(x);
  if constexpr (op == UnaryOp::kGelu) return vgelu<T>(x);
  if constexpr (op == UnaryOp::kGeluErf) return vgelu_erf<T>(x);
  if constexpr (op == UnaryOp::kRelu) return vrelu<T>(x);
  if constexpr (op == UnaryOp::kFloor) return each_lane<T>(x, [](T v) { return std::floor(v); });
  if constexpr (op == UnaryOp::kCeil) return each_lane<T>(x, [](T v) { return std::ceil(v); });
  if constexpr (op == UnaryOp::kRound) return each_lane<T>(x, [](T v) { return std::nearbyint(v); });
  if constexpr (op == UnaryOp::kTrunc) return each_lane<T>(x, [](T v) { return std::trunc(v); });
}

template <UnaryOp op>
inline constexpr bool kIsTest = op == UnaryOp::kIsFinite || op == UnaryOp::kIsNan || op == UnaryOp::kLogicalNot;
template <UnaryOp op>
inline constexpr bool kTakesIntegers =
    op == UnaryOp::kNeg || op == UnaryOp::kAbs || op == UnaryOp::kSquare || op == UnaryOp::kSign;

template <UnaryOp op, class T>
void run(const T* x, T* out, int64_t n) {
  map_vectors(
      n, [](Vec<T> v) { return apply<op, T>(v); }, out, x);
  if constexpr (op == UnaryOp::kSin) patch_beyond_trig_range(x, n, [&](int64_t i) { out[i] = std::sin(x[i]); });
  if constexpr (op == UnaryOp::kCos) patch_beyond_trig_range(x, n, [&](int64_t i) { out[i] = std::cos(x[i]); });
}

template <class T, int index = 0>
auto run_of(UnaryOp op) -> void (*)(const T*, T*, int64_t) {
  if constexpr (index < kUnaryOpCount) {
    constexpr UnaryOp kOp = static_cast<UnaryOp>(index);
    if (op != kOp) return run_of<T, index + 1>(op);
    if constexpr (!kIsTest<kOp> && (kIsFloat<T> || kTakesIntegers<kOp>)) return run<kOp, T>;
  }
  fail("ERR_DTYPE", "[unary] operation %d has no kernel for this dtype", static_cast<int>(op));
}

template <class T>
void is_finite(const T* x, uint8_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] - x[i] == T(0);
}
template <class T>
void is_nan(const T* x, uint8_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] != x[i];
}
void logical_not(const uint8_t* x, uint8_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] == 0;
}

template <class T>
void unary_of(UnaryOp op, const In& x, const Out& out) {
  if (op == UnaryOp::kIsFinite) return map_runs(is_finite<T>, x, out);
  if (op == UnaryOp::kIsNan) return map_runs(is_nan<T>, x, out);
  map_runs(run_of<T>(op), x, out);
}

}  // namespace

void CpuKernels::unary(UnaryOp op, const In& x, const Out& out) {
  switch (x.dtype) {
    case DType::kF64:
      return unary_of<double>(op, x, out);
    case DType::kI32:
      return map_runs(run_of<int32_t>(op), x, out);
    case DType::kU8:
    case DType::kBool:
      return map_runs(logical_not, x, out);
    default:
      return unary_of<float>(op, x, out);
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA
