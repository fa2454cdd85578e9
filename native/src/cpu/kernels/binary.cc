// binary: arithmetic and comparisons. A broadcast axis has stride 0 and is read as a block of equal numbers.
#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "runs.h"
#include "vector_log.h"
#include "vector_pow.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// Integer division truncates; by zero it gives 0. A negative power of an integer is that of 1/x, truncated.
LLMEFF_INLINE int32_t divide(int32_t a, int32_t b) {
  return b == 0 ? 0 : static_cast<int32_t>(int64_t{a} / int64_t{b});
}
LLMEFF_INLINE int32_t power(int32_t x, int32_t exponent) {
  if (exponent < 0) return x == 1 ? 1 : x == -1 ? (exponent % 2 != 0 ? -1 : 1) : 0;
  uint32_t y = 1;
  for (uint32_t square = static_cast<uint32_t>(x); exponent > 0; exponent >>= 1, square *= square)
    if (exponent & 1) y *= square;
  return static_cast<int32_t>(y);
}

template <class T, class F>
LLMEFF_INLINE Vec<T> each_pair(Vec<T> a, Vec<T> b, const F& f) {
  T x[kLanes<T>], y[kLanes<T>];
  store(x, a);
  store(y, b);
  for (int64_t i = 0; i < kLanes<T>; ++i) x[i] = f(x[i], y[i]);
  return load(x);
}

// The remainder of the division that rounds down: it has the sign of b. By zero: NaN, of integers 0.
template <class T>
LLMEFF_INLINE T remainder_of(T a, T b) {
  if constexpr (kIsFloat<T>) {
    const T r = std::fmod(a, b);
    if (r == 0) return std::copysign(r, b);
    return (r < 0) != (b < 0) ? r + b : r;
  } else {
    const int64_t r = b == 0 ? 0 : int64_t{a} % b;
    return static_cast<T>(r != 0 && (r < 0) != (b < 0) ? r + b : r);
  }
}

template <BinaryOp op, class T>
LLMEFF_INLINE Vec<T> apply(Vec<T> a, Vec<T> b) {
  if constexpr (op == BinaryOp::kAdd) return (Vec<T>)(wrapping(a) + wrapping(b));
  if constexpr (op == BinaryOp::kSub) return (Vec<T>)(wrapping(a) - wrapping(b));
  if constexpr (op == BinaryOp::kMul) return (Vec<T>)(wrapping(a) * wrapping(b));
  if constexpr (op == BinaryOp::kMaximum) return nan_max(a, b);
  if constexpr (op == BinaryOp::kMinimum) return nan_min(a, b);
  if constexpr (op == BinaryOp::kRemainder) return each_pair<T>(a, b, [](T x, T y) { return remainder_of(x, y); });
  if constexpr (kIsFloat<T>) {
    if constexpr (op == BinaryOp::kDiv) return a / b;
    if constexpr (op == BinaryOp::kPow) return vpow(a, b);
    if constexpr (op == BinaryOp::kAtan2) return each_pair<T>(a, b, [](T y, T x) { return std::atan2(y, x); });
    if constexpr (op == BinaryOp::kLogAddExp) return vlog_add_exp<T>(a, b);
  } else {
    if constexpr (op == BinaryOp::kDiv) return each_pair<T>(a, b, [](T x, T y) { return divide(x, y); });
    if constexpr (op == BinaryOp::kPow) return each_pair<T>(a, b, [](T x, T y) { return power(x, y); });
  }
}

template <BinaryOp op>
inline constexpr bool kCompares = op >= BinaryOp::kEqual&& op <= BinaryOp::kGreaterEqual;
template <BinaryOp op>
inline constexpr bool kIsLogical = op >= BinaryOp::kLogicalAnd;
template <BinaryOp op>
inline constexpr bool kTakesIntegers = op != BinaryOp::kAtan2&& op != BinaryOp::kLogAddExp;

template <BinaryOp op, class T>
void run(const T* a, const T* b, T* out, int64_t n) {
  map_vectors(
      n, [](Vec<T> x, Vec<T> y) { return apply<op, T>(x, y); }, out, a, b);
}

template <BinaryOp op, class T>
LLMEFF_INLINE bool holds(T a, T b) {
  if constexpr (op == BinaryOp::kEqual) return a == b;
  if constexpr (op == BinaryOp::kNotEqual) return a != b;
  if constexpr (op == BinaryOp::kLess) return a < b;
  if constexpr (op == BinaryOp::kLessEqual) return a <= b;
  if constexpr (op == BinaryOp::kGreater) return a > b;
  if constexpr (op == BinaryOp::kGreaterEqual) return a >= b;
}

template <BinaryOp op, class T>
void compare(const T* a, const T* b, uint8_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = holds<op, T>(a[i], b[i]);
}

template <BinaryOp op>
void combine(const uint8_t* a, const uint8_t* b, uint8_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const bool x = a[i] != 0, y = b[i] != 0;
    out[i] = op == BinaryOp::kLogicalAnd ? x & y : op == BinaryOp::kLogicalOr ? x | y : x ^ y;
  }
}

template <class T, int index = 0>
void binary_of(BinaryOp op, const In& a, const In& b, const Out& out) {
  if constexpr (index < kBinaryOpCount) {
    constexpr BinaryOp kOp = static_cast<BinaryOp>(index);
    if (op != kOp) return binary_of<T, index + 1>(op, a, b, out);
    if constexpr (kCompares<kOp>)
      return map_runs(compare<kOp, T>, a, b, out);
    else if constexpr (!kIsLogical<kOp> && (kIsFloat<T> || kTakesIntegers<kOp>))
      return map_runs(run<kOp, T>, a, b, out);
  }
  fail("ERR_DTYPE", "[binary] operation %d has no kernel for dtype %d", static_cast<int>(op),
       static_cast<int>(a.dtype));
}

void logical(BinaryOp op, const In& a, const In& b, const Out& out) {
  if (op == BinaryOp::kLogicalAnd) return map_runs(combine<BinaryOp::kLogicalAnd>, a, b, out);
  if (op == BinaryOp::kLogicalOr) return map_runs(combine<BinaryOp::kLogicalOr>, a, b, out);
  map_runs(combine<BinaryOp::kLogicalXor>, a, b, out);
}

}  // namespace

void CpuKernels::binary(BinaryOp op, const In& a, const In& b, const Out& out) {
  switch (a.dtype) {
    case DType::kF64:
      return binary_of<double>(op, a, b, out);
    case DType::kI32:
      return binary_of<int32_t>(op, a, b, out);
    case DType::kU8:
    case DType::kBool:
      return logical(op, a, b, out);
    default:
      return binary_of<float>(op, a, b, out);
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA
