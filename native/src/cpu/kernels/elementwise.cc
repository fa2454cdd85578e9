// unary, binary and where. Each function is written once, on vectors; strided views gather and scatter the lanes of the
// same vector code, so that a result does not depend on the layout. Axes broadcast with stride 0 (a bias, a scalar) are
// splatted.
#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "strided.h"
#include "vector_math.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
inline constexpr bool kIsFloat = false;
template <>
inline constexpr bool kIsFloat<float> = true;
template <>
inline constexpr bool kIsFloat<double> = true;

template <UnaryOp op, class T>
LLMEFF_INLINE Vec<T> apply(Vec<T> x) {
  if constexpr (op == UnaryOp::kNeg) return -x;
  if constexpr (op == UnaryOp::kAbs) return vabs<T>(x);
  if constexpr (op == UnaryOp::kSquare) return x * x;
  if constexpr (op == UnaryOp::kExp) return vexp(x);
  if constexpr (op == UnaryOp::kLog) return each_lane<T>(x, [](T v) { return std::log(v); });
  if constexpr (op == UnaryOp::kSqrt) return each_lane<T>(x, [](T v) { return root(v); });
  if constexpr (op == UnaryOp::kRsqrt) return T(1) / each_lane<T>(x, [](T v) { return root(v); });
  if constexpr (op == UnaryOp::kReciprocal) return T(1) / x;
  if constexpr (op == UnaryOp::kSin) return each_lane<T>(x, [](T v) { return std::sin(v); });
  if constexpr (op == UnaryOp::kCos) return each_lane<T>(x, [](T v) { return std::cos(v); });
  if constexpr (op == UnaryOp::kTanh) return vtanh(x);
  if constexpr (op == UnaryOp::kSigmoid) return vsigmoid<T>(x);
  if constexpr (op == UnaryOp::kSilu) return x * vsigmoid<T>(x);
  if constexpr (op == UnaryOp::kGelu) return vgelu<T>(x);
  if constexpr (op == UnaryOp::kRelu) return x < T(0) ? Vec<T>{} : x;
}

template <UnaryOp op, class T>
void map_unary(const In& x, const Out& out) {
  const Loop<2> loop = make_loop<2>({&out, &x}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0), sx = loop.inner_stride(1);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    T* o = out.as<T>() + at[0];
    const T* p = x.as<T>() + at[1];
    const auto f = [](Vec<T> v) { return apply<op, T>(v); };
    if (so == 1 && sx == 1) return map_vectors(n, f, o, p);
    for (int64_t i = 0; i < n; i += kLanes<T>) {
      const int64_t part = smaller(kLanes<T>, n - i);
      scatter(o + i * so, so, f(gather(p + i * sx, sx, part)), part);
    }
  });
}

template <class T>
void map_is_finite(const In& x, const Out& out) {
  const Loop<2> loop = make_loop<2>({&out, &x}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0), sx = loop.inner_stride(1);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    uint8_t* o = out.as<uint8_t>() + at[0];
    const T* p = x.as<T>() + at[1];
    if (so == 1 && sx == 1) {
      for (int64_t i = 0; i < n; ++i) o[i] = p[i] - p[i] == T(0);
    } else {
      for (int64_t i = 0; i < n; ++i) o[i * so] = p[i * sx] - p[i * sx] == T(0);
    }
  });
}

[[noreturn]] void refuse(const char* what, int op, DType dtype) {
  fail("ERR_DTYPE", "[%s] operation %d has no kernel for dtype %d", what, op, static_cast<int>(dtype));
}

template <class T>
void unary_of(UnaryOp op, const In& x, const Out& out) {
  switch (op) {
    case UnaryOp::kNeg:
      return map_unary<UnaryOp::kNeg, T>(x, out);
    case UnaryOp::kAbs:
      return map_unary<UnaryOp::kAbs, T>(x, out);
    case UnaryOp::kSquare:
      return map_unary<UnaryOp::kSquare, T>(x, out);
    default:
      break;
  }
  if constexpr (kIsFloat<T>) {
    switch (op) {
      case UnaryOp::kExp:
        return map_unary<UnaryOp::kExp, T>(x, out);
      case UnaryOp::kLog:
        return map_unary<UnaryOp::kLog, T>(x, out);
      case UnaryOp::kSqrt:
        return map_unary<UnaryOp::kSqrt, T>(x, out);
      case UnaryOp::kRsqrt:
        return map_unary<UnaryOp::kRsqrt, T>(x, out);
      case UnaryOp::kReciprocal:
        return map_unary<UnaryOp::kReciprocal, T>(x, out);
      case UnaryOp::kSin:
        return map_unary<UnaryOp::kSin, T>(x, out);
      case UnaryOp::kCos:
        return map_unary<UnaryOp::kCos, T>(x, out);
      case UnaryOp::kTanh:
        return map_unary<UnaryOp::kTanh, T>(x, out);
      case UnaryOp::kSigmoid:
        return map_unary<UnaryOp::kSigmoid, T>(x, out);
      case UnaryOp::kSilu:
        return map_unary<UnaryOp::kSilu, T>(x, out);
      case UnaryOp::kGelu:
        return map_unary<UnaryOp::kGelu, T>(x, out);
      case UnaryOp::kRelu:
        return map_unary<UnaryOp::kRelu, T>(x, out);
      case UnaryOp::kIsFinite:
        return map_is_finite<T>(x, out);
      default:
        break;
    }
  }
  refuse("unary", static_cast<int>(op), x.dtype);
}

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

template <BinaryOp op, class T>
LLMEFF_INLINE Vec<T> apply(Vec<T> a, Vec<T> b) {
  if constexpr (op == BinaryOp::kAdd) return a + b;
  if constexpr (op == BinaryOp::kSub) return a - b;
  if constexpr (op == BinaryOp::kMul) return a * b;
  if constexpr (op == BinaryOp::kMaximum) return nan_max(a, b);
  if constexpr (op == BinaryOp::kMinimum) return nan_min(a, b);
  if constexpr (op == BinaryOp::kDiv && kIsFloat<T>) return a / b;
  if constexpr (op == BinaryOp::kPow || (op == BinaryOp::kDiv && !kIsFloat<T>)) {
    T x[kLanes<T>], y[kLanes<T>];
    store(x, a);
    store(y, b);
    for (int64_t i = 0; i < kLanes<T>; ++i) {
      if constexpr (kIsFloat<T>)
        x[i] = y[i] == T(2) ? x[i] * x[i] : std::pow(x[i], y[i]);
      else
        x[i] = op == BinaryOp::kPow ? power(x[i], y[i]) : divide(x[i], y[i]);
    }
    return load(x);
  }
}

template <BinaryOp op, class T>
void map_binary(const In& a, const In& b, const Out& out) {
  const Loop<3> loop = make_loop<3>({&out, &a, &b}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0), sa = loop.inner_stride(1), sb = loop.inner_stride(2);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    T* o = out.as<T>() + at[0];
    const T* p = a.as<T>() + at[1];
    const T* q = b.as<T>() + at[2];
    if (so == 1 && sa == 1 && sb == 1)
      return map_vectors(
          n, [](Vec<T> x, Vec<T> y) { return apply<op, T>(x, y); }, o, p, q);
    if (so == 1 && sa == 1 && sb == 0) {
      const Vec<T> y = splat(*q);
      return map_vectors(
          n, [y](Vec<T> x) { return apply<op, T>(x, y); }, o, p);
    }
    if (so == 1 && sa == 0 && sb == 1) {
      const Vec<T> x = splat(*p);
      return map_vectors(
          n, [x](Vec<T> y) { return apply<op, T>(x, y); }, o, q);
    }
    for (int64_t i = 0; i < n; i += kLanes<T>) {
      const int64_t part = smaller(kLanes<T>, n - i);
      scatter(o + i * so, so, apply<op, T>(gather(p + i * sa, sa, part), gather(q + i * sb, sb, part)), part);
    }
  });
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
void map_compare(const In& a, const In& b, const Out& out) {
  const Loop<3> loop = make_loop<3>({&out, &a, &b}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0), sa = loop.inner_stride(1), sb = loop.inner_stride(2);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    uint8_t* __restrict o = out.as<uint8_t>() + at[0];
    const T* p = a.as<T>() + at[1];
    const T* q = b.as<T>() + at[2];
    if (so == 1 && sa == 1 && sb == 1) {
      for (int64_t i = 0; i < n; ++i) o[i] = holds<op, T>(p[i], q[i]);
    } else if (so == 1 && sa == 1 && sb == 0) {
      for (int64_t i = 0; i < n; ++i) o[i] = holds<op, T>(p[i], *q);
    } else {
      for (int64_t i = 0; i < n; ++i) o[i * so] = holds<op, T>(p[i * sa], q[i * sb]);
    }
  });
}

template <class T>
void binary_of(BinaryOp op, const In& a, const In& b, const Out& out) {
  switch (op) {
    case BinaryOp::kAdd:
      return map_binary<BinaryOp::kAdd, T>(a, b, out);
    case BinaryOp::kSub:
      return map_binary<BinaryOp::kSub, T>(a, b, out);
    case BinaryOp::kMul:
      return map_binary<BinaryOp::kMul, T>(a, b, out);
    case BinaryOp::kDiv:
      return map_binary<BinaryOp::kDiv, T>(a, b, out);
    case BinaryOp::kPow:
      return map_binary<BinaryOp::kPow, T>(a, b, out);
    case BinaryOp::kMaximum:
      return map_binary<BinaryOp::kMaximum, T>(a, b, out);
    case BinaryOp::kMinimum:
      return map_binary<BinaryOp::kMinimum, T>(a, b, out);
    case BinaryOp::kEqual:
      return map_compare<BinaryOp::kEqual, T>(a, b, out);
    case BinaryOp::kNotEqual:
      return map_compare<BinaryOp::kNotEqual, T>(a, b, out);
    case BinaryOp::kLess:
      return map_compare<BinaryOp::kLess, T>(a, b, out);
    case BinaryOp::kLessEqual:
      return map_compare<BinaryOp::kLessEqual, T>(a, b, out);
    case BinaryOp::kGreater:
      return map_compare<BinaryOp::kGreater, T>(a, b, out);
    case BinaryOp::kGreaterEqual:
      return map_compare<BinaryOp::kGreaterEqual, T>(a, b, out);
  }
  refuse("binary", static_cast<int>(op), a.dtype);
}

// T is an unsigned integer of the dtype's size: the elements are only moved.
template <class T>
void select(const In& condition, const In& a, const In& b, const Out& out) {
  const Loop<4> loop = make_loop<4>({&out, &condition, &a, &b}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0), sc = loop.inner_stride(1), sa = loop.inner_stride(2),
                sb = loop.inner_stride(3);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    T* o = out.as<T>() + at[0];
    const uint8_t* c = condition.as<uint8_t>() + at[1];
    const T* p = a.as<T>() + at[2];
    const T* q = b.as<T>() + at[3];
    if (so == 1 && sc == 1 && sa == 1 && sb == 1) {
      for (int64_t i = 0; i < n; ++i) {
        const T x = p[i], y = q[i];
        o[i] = c[i] ? x : y;
      }
    } else if (so == 1 && sc == 1 && sa == 1 && sb == 0) {
      const T y = *q;
      for (int64_t i = 0; i < n; ++i) {
        const T x = p[i];
        o[i] = c[i] ? x : y;
      }
    } else {
      for (int64_t i = 0; i < n; ++i) o[i * so] = c[i * sc] ? p[i * sa] : q[i * sb];
    }
  });
}

}  // namespace

void CpuKernels::unary(UnaryOp op, const In& x, const Out& out) {
  switch (x.dtype) {
    case DType::kF32:
      return unary_of<float>(op, x, out);
    case DType::kF64:
      return unary_of<double>(op, x, out);
    case DType::kI32:
      return unary_of<int32_t>(op, x, out);
    default:
      refuse("unary", static_cast<int>(op), x.dtype);
  }
}

void CpuKernels::binary(BinaryOp op, const In& a, const In& b, const Out& out) {
  switch (a.dtype) {
    case DType::kF32:
      return binary_of<float>(op, a, b, out);
    case DType::kF64:
      return binary_of<double>(op, a, b, out);
    case DType::kI32:
      return binary_of<int32_t>(op, a, b, out);
    default:
      refuse("binary", static_cast<int>(op), a.dtype);
  }
}

void CpuKernels::where(const In& condition, const In& a, const In& b, const Out& out) {
  switch (item_size(out.dtype)) {
    case 8:
      return select<uint64_t>(condition, a, b, out);
    case 4:
      return select<uint32_t>(condition, a, b, out);
    case 2:
      return select<uint16_t>(condition, a, b, out);
    default:
      return select<uint8_t>(condition, a, b, out);
  }
}

void CpuKernels::unary_grad(UnaryOp, const In&, const In&, const Out&) {
  fail("ERR_INTERNAL", "unary_grad is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
