// copy, fill, random, unary, binary, where and reduce against plain loops in float64, over odd shapes and layouts.
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "isas.h"
#include "test.h"

namespace llmeff::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
using Shape = std::vector<int64_t>;

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::kF32;
  if constexpr (std::is_same_v<T, double>) return DType::kF64;
  if constexpr (std::is_same_v<T, int32_t>) return DType::kI32;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::kU8;
  if constexpr (std::is_same_v<T, bool>) return DType::kBool;
}

enum Layout { kContiguous, kReversed, kPadded, kEverySecond };
constexpr Layout kLayouts[] = {kContiguous, kReversed, kPadded, kEverySecond};

int64_t product(const Shape& shape) {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return n;
}

// Elements of a shape somewhere in memory: reversed axes, padded rows, every second element.
template <class T>
struct Array {
  Shape shape, strides;
  std::vector<T> memory;

  Array(const Shape& of, Layout layout) : shape(of), strides(of.size()) {
    const int rank = static_cast<int>(of.size());
    int64_t step = layout == kEverySecond ? 2 : 1;
    for (int i = 0; i < rank; ++i) {
      const int axis = layout == kReversed ? i : rank - 1 - i;
      strides[axis] = step;
      step = step * shape[axis] + (layout == kPadded ? 3 : 0);
    }
    memory.resize(static_cast<size_t>(step) + 8);
  }
  int64_t size() const { return product(shape); }
  int64_t offset(int64_t i) const {
    int64_t at = 0;
    for (size_t axis = shape.size(); axis-- > 0; i /= shape[axis]) at += i % shape[axis] * strides[axis];
    return at;
  }
  T& operator[](int64_t i) { return memory[static_cast<size_t>(offset(i))]; }
  T operator[](int64_t i) const { return memory[static_cast<size_t>(offset(i))]; }
  template <class V>
  V as(DType dtype = dtype_of<T>()) const {
    V v = view<V>(memory.data(), shape, strides);
    v.dtype = dtype;
    return v;
  }
};

const std::vector<Shape> kShapes = {{1},     {3},        {4},    {15},     {16},     {17},      {31},
                                    {33},    {130},      {5, 7}, {16, 33}, {67, 70}, {3, 5, 9}, {2, 17, 3, 40},
                                    {40000}, {3, 20000}, {}};

const double kSpecial[] = {0.0, -0.0, kInf, -kInf, kNan, 1e-30, -88.5, 88.5, 1e4, -1e4, 0.625, 1.0, -1.0};

template <class T>
void fill_numbers(Array<T>& x, Numbers& random, double scale, bool special) {
  for (int64_t i = 0; i < x.size(); ++i) {
    const uint64_t draw = random.bits() % 40;
    x[i] = static_cast<T>(special && draw < 13 ? kSpecial[draw] : scale * random());
  }
}

double unary_reference(UnaryOp op, double x) {
  switch (op) {
    case UnaryOp::kNeg:
      return -x;
    case UnaryOp::kAbs:
      return std::fabs(x);
    case UnaryOp::kExp:
      return std::exp(x);
    case UnaryOp::kLog:
      return std::log(x);
    case UnaryOp::kSqrt:
      return std::sqrt(x);
    case UnaryOp::kRsqrt:
      return 1 / std::sqrt(x);
    case UnaryOp::kReciprocal:
      return 1 / x;
    case UnaryOp::kSquare:
      return x * x;
    case UnaryOp::kSin:
      return std::sin(x);
    case UnaryOp::kCos:
      return std::cos(x);
    case UnaryOp::kTanh:
      return std::tanh(x);
    case UnaryOp::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case UnaryOp::kSilu:
      return x / (1 + std::exp(-x));
    case UnaryOp::kGelu:
      return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case UnaryOp::kRelu:
      return x < 0 ? 0 : x;
    case UnaryOp::kIsFinite:
      return std::isfinite(x);
    case UnaryOp::kExpm1:
      return std::expm1(x);
    case UnaryOp::kLog1p:
      return std::log1p(x);
    case UnaryOp::kTan:
      return std::tan(x);
    case UnaryOp::kAsin:
      return std::asin(x);
    case UnaryOp::kAcos:
      return std::acos(x);
    case UnaryOp::kAtan:
      return std::atan(x);
    case UnaryOp::kSinh:
      return std::sinh(x);
    case UnaryOp::kCosh:
      return std::cosh(x);
    case UnaryOp::kErf:
      return std::erf(x);
    case UnaryOp::kGeluErf:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case UnaryOp::kSoftplus:
      return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))) + (std::isnan(x) ? x : 0);
    case UnaryOp::kFloor:
      return std::floor(x);
    case UnaryOp::kCeil:
      return std::ceil(x);
    case UnaryOp::kRound:
      return std::nearbyint(x);
    case UnaryOp::kTrunc:
      return std::trunc(x);
    case UnaryOp::kSign:
      return x > 0 ? 1 : x < 0 ? -1 : x;
    case UnaryOp::kIsNan:
      return std::isnan(x);
    case UnaryOp::kLogicalNot:
      return x == 0;
  }
  return kNan;
}

// x·sigmoid(x) at −∞ is 0 in the limit and NaN by IEEE rules: either is fine.
bool limit_of_product(UnaryOp op, double x) {
  return (op == UnaryOp::kSilu || op == UnaryOp::kGelu || op == UnaryOp::kGeluErf) && x == -kInf;
}

template <class T>
void check_unary(const Isa& isa, UnaryOp op, double tolerance) {
  Numbers random(11);
  for (const Shape& shape : kShapes) {
    for (Layout from : kLayouts) {
      const Layout to = kLayouts[random.bits() % 4];
      Array<T> x(shape, from);
      fill_numbers(x, random, 3, true);
      Array<T> out(shape, to);
      Array<uint8_t> flags(shape, to);
      const bool tests = op == UnaryOp::kIsFinite || op == UnaryOp::kIsNan;
      isa.kernels->unary(op, x.template as<In>(),
                         tests ? flags.template as<Out>(DType::kBool) : out.template as<Out>());
      for (int64_t i = 0; i < x.size(); ++i) {
        const double in = x[i], got = tests ? flags[i] : static_cast<double>(out[i]);
        const double want = static_cast<double>(static_cast<T>(unary_reference(op, in)));
        const double scale = std::isfinite(want) ? std::fabs(want) : 0;
        const bool relative = std::fabs(got - want) <= tolerance * (scale + 1e-3);
        CHECK(limit_of_product(op, in) || relative || close(got, want, 0),
              "%s op %d %zu-byte x=%.9g got %.9g want %.9g", isa.name, static_cast<int>(op), sizeof(T), in, got, want);
      }
    }
  }
}

TEST(unary_float32) {
  for (const Isa& isa : isas())
    for (int op = 0; op < static_cast<int>(UnaryOp::kLogicalNot); ++op)
      check_unary<float>(isa, static_cast<UnaryOp>(op), 2e-6);
}
TEST(unary_float64) {
  for (const Isa& isa : isas())
    for (int op = 0; op < static_cast<int>(UnaryOp::kLogicalNot); ++op)
      check_unary<double>(isa, static_cast<UnaryOp>(op), 1e-13);
}
TEST(unary_int32) {
  for (const Isa& isa : isas())
    for (UnaryOp op : {UnaryOp::kNeg, UnaryOp::kAbs, UnaryOp::kSquare, UnaryOp::kSign}) {
      Array<int32_t> x({5, 13}, kReversed), out({5, 13}, kContiguous);
      for (int64_t i = 0; i < 65; ++i) x[i] = static_cast<int32_t>(i * 37 - 1000);
      isa.kernels->unary(op, x.as<In>(), out.as<Out>());
      for (int64_t i = 0; i < 65; ++i)
        CHECK(out[i] == unary_reference(op, x[i]), "%s op %d", isa.name, static_cast<int>(op));
    }
}

double binary_reference(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::kAdd:
      return a + b;
    case BinaryOp::kSub:
      return a - b;
    case BinaryOp::kMul:
      return a * b;
    case BinaryOp::kDiv:
      return a / b;
    case BinaryOp::kPow:
      return std::pow(a, b);
    case BinaryOp::kMaximum:
      return std::isnan(a) || std::isnan(b) ? kNan : std::fmax(a, b);
    case BinaryOp::kMinimum:
      return std::isnan(a) || std::isnan(b) ? kNan : std::fmin(a, b);
    case BinaryOp::kEqual:
      return a == b;
    case BinaryOp::kNotEqual:
      return a != b;
    case BinaryOp::kLess:
      return a < b;
    case BinaryOp::kLessEqual:
      return a <= b;
    case BinaryOp::kGreater:
      return a > b;
    case BinaryOp::kGreaterEqual:
      return a >= b;
    case BinaryOp::kAtan2:
      return std::atan2(a, b);
    case BinaryOp::kRemainder: {
      const double r = std::fmod(a, b);
      if (r == 0) return std::copysign(r, b);
      return (r < 0) != (b < 0) ? r + b : r;
    }
    case BinaryOp::kLogAddExp:
      if (std::isnan(a) || std::isnan(b)) return kNan;
      return a == b ? a + std::log(2.0) : std::fmax(a, b) + std::log1p(std::exp(-std::fabs(a - b)));
    case BinaryOp::kLogicalAnd:
      return a != 0 && b != 0;
    case BinaryOp::kLogicalOr:
      return a != 0 || b != 0;
    case BinaryOp::kLogicalXor:
      return (a != 0) != (b != 0);
  }
  return kNan;
}

// b as it is, or broadcast along no axis, all axes, the last or the first.
template <class T>
void check_binary(const Isa& isa, BinaryOp op, double tolerance) {
  Numbers random(12);
  for (const Shape& shape : kShapes) {
    for (int broadcast = 0; broadcast < 5; ++broadcast) {
      Array<T> a(shape, kLayouts[random.bits() % 4]), b(shape, kLayouts[random.bits() % 4]),
          out(shape, kLayouts[random.bits() % 2]);
      for (size_t axis = 0; axis < shape.size(); ++axis) {
        const bool last = axis + 1 == shape.size();
        if (broadcast == 1 || (broadcast == 2 && last) || (broadcast == 3 && !last)) b.strides[axis] = 0;
        if (broadcast == 4) a.strides[axis] = 0;
      }
      for (auto* x : {&a, &b})
        for (T& v : x->memory)
          v = static_cast<T>(std::round(2 * random()) == 0 ? kSpecial[random.bits() % 13] : 2 * random());
      Array<uint8_t> flags(shape, kLayouts[random.bits() % 2]);
      const bool compares = op >= BinaryOp::kEqual && op <= BinaryOp::kGreaterEqual;
      isa.kernels->binary(op, a.template as<In>(), b.template as<In>(),
                          compares ? flags.template as<Out>(DType::kBool) : out.template as<Out>());
      for (int64_t i = 0; i < a.size(); ++i) {
        const double got = compares ? flags[i] : static_cast<double>(out[i]);
        const double want = static_cast<double>(static_cast<T>(binary_reference(op, a[i], b[i])));
        CHECK(close(got, want, tolerance), "%s op %d %zu-byte a=%g b=%g got %.9g want %.9g", isa.name,
              static_cast<int>(op), sizeof(T), static_cast<double>(a[i]), static_cast<double>(b[i]), got, want);
      }
    }
  }
}

TEST(binary_float32) {
  for (const Isa& isa : isas())
    for (int op = 0; op < static_cast<int>(BinaryOp::kLogicalAnd); ++op)
      check_binary<float>(isa, static_cast<BinaryOp>(op), 3e-7);
}
TEST(binary_float64) {
  for (const Isa& isa : isas())
    for (int op = 0; op < static_cast<int>(BinaryOp::kLogicalAnd); ++op)
      check_binary<double>(isa, static_cast<BinaryOp>(op), 1e-15);
}
TEST(binary_int32) {
  const int32_t values[] = {0, 1, -1, 2, -3, 7, 100, std::numeric_limits<int32_t>::min()};
  for (const Isa& isa : isas()) {
    Array<int32_t> a({8, 8}, kContiguous), b({8, 8}, kReversed), out({8, 8}, kContiguous);
    for (int64_t i = 0; i < 64; ++i) a[i] = values[i / 8], b[i] = values[i % 8];
    isa.kernels->binary(BinaryOp::kDiv, a.as<In>(), b.as<In>(), out.as<Out>());
    for (int64_t i = 0; i < 64; ++i) {
      const int64_t want = b[i] == 0 ? 0 : int64_t{a[i]} / b[i];
      CHECK(out[i] == static_cast<int32_t>(want), "%s %d / %d = %d", isa.name, a[i], b[i], out[i]);
    }
    for (int64_t i = 0; i < 64; ++i) a[i] = static_cast<int32_t>(i / 8) - 4, b[i] = static_cast<int32_t>(i % 8) - 2;
    isa.kernels->binary(BinaryOp::kPow, a.as<In>(), b.as<In>(), out.as<Out>());
    for (int64_t i = 0; i < 64; ++i)
      if (a[i] != 0) CHECK(out[i] == std::trunc(std::pow(a[i], b[i])), "%s %d ^ %d = %d", isa.name, a[i], b[i], out[i]);
  }
}

TEST(where_moves_any_dtype) {
  Numbers random(13);
  for (const Isa& isa : isas())
    for (const Shape& shape : kShapes)
      for (Layout layout : kLayouts) {
        Array<uint8_t> condition(shape, layout);
        Array<double> a(shape, kContiguous), b(shape, layout), out(shape, kContiguous);
        Array<uint8_t> small_a(shape, layout), small_b(shape, kContiguous), small_out(shape, layout);
        for (int64_t i = 0; i < a.size(); ++i) {
          condition[i] = random.bits() & 1;
          a[i] = random(), b[i] = kNan;
          small_a[i] = static_cast<uint8_t>(random.bits()), small_b[i] = static_cast<uint8_t>(random.bits());
        }
        isa.kernels->where(condition.as<In>(DType::kBool), a.as<In>(), b.as<In>(), out.as<Out>());
        isa.kernels->where(condition.as<In>(DType::kBool), small_a.as<In>(), small_b.as<In>(), small_out.as<Out>());
        for (int64_t i = 0; i < a.size(); ++i) {
          CHECK(close(out[i], condition[i] ? a[i] : kNan, 0), "%s float64", isa.name);
          CHECK(small_out[i] == (condition[i] ? small_a[i] : small_b[i]), "%s uint8", isa.name);
        }
      }
}

TEST(copy_permutes) {
  Numbers random(14);
  const std::vector<std::pair<Shape, Shape>> cases = {
      {{67, 70}, {1, 0}}, {{2, 9, 4, 33}, {0, 2, 1, 3}}, {{2, 9, 4, 33}, {3, 1, 0, 2}},
      {{16, 16}, {1, 0}}, {{3, 40, 5}, {2, 1, 0}},       {{64, 3, 64}, {0, 2, 1}},
      {{1, 300}, {1, 0}}};
  for (const Isa& isa : isas())
    for (const auto& [shape, axes] : cases) {
      const auto check = [&]<class T>(T) {
        Array<T> x(shape, kContiguous);
        for (T& v : x.memory) v = static_cast<T>(random.bits() & 0x7F);
        Array<T> seen = x;
        for (size_t i = 0; i < axes.size(); ++i) seen.shape[i] = shape[axes[i]], seen.strides[i] = x.strides[axes[i]];
        for (Layout to : kLayouts) {
          Array<T> out(seen.shape, to);
          isa.kernels->copy(seen.template as<In>(), out.template as<Out>());
          for (int64_t i = 0; i < x.size(); ++i)
            CHECK(out[i] == seen[i], "%s %zu-byte layout %d element %ld", isa.name, sizeof(T), to,
                  static_cast<long>(i));
        }
      };
      check(double{}), check(float{}), check(uint8_t{});
      Array<float> x(shape, kReversed);
      Array<double> out(shape, kContiguous);
      fill_numbers(x, random, 1, true);
      isa.kernels->copy(x.as<In>(), out.as<Out>());
      for (int64_t i = 0; i < x.size(); ++i) CHECK(close(out[i], x[i], 0), "%s float32 to float64", isa.name);
    }
}

// The nearest of all finite 16-bit numbers, ties to the even one, by looking at each: no bit tricks shared with the
// kernel.
double half_value(uint16_t bits, int mantissa_bits, int bias) {
  const int exponent_bits = 15 - mantissa_bits, exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
  const double fraction = bits & ((1 << mantissa_bits) - 1), sign = bits >> 15 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return fraction != 0 ? kNan : sign * kInf;
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias - mantissa_bits)
                       : sign * std::ldexp(fraction + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}
uint16_t nearest_half(double x, int mantissa_bits, int bias) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0,
                 infinity = static_cast<uint16_t>(((1 << (15 - mantissa_bits)) - 1) << mantissa_bits);
  const double magnitude = std::fabs(x);
  uint16_t low = 0, high = infinity;  // value(low) <= magnitude; infinity counts as the number after the largest
  const double beyond = std::ldexp(1.0, infinity >> mantissa_bits) * std::ldexp(1.0, -bias);
  if (magnitude >= beyond) return sign | infinity;
  while (high - low > 1) {
    const uint16_t middle = static_cast<uint16_t>((low + high) / 2);
    (half_value(middle, mantissa_bits, bias) <= magnitude ? low : high) = middle;
  }
  const double below = half_value(low, mantissa_bits, bias),
               above = high == infinity ? beyond : half_value(high, mantissa_bits, bias);
  const bool up = magnitude - below > above - magnitude || (magnitude - below == above - magnitude && low % 2 == 1);
  return sign | (up ? high : low);
}

template <class T>
void check_halves(const Isa& isa, DType dtype, int mantissa_bits, int bias) {
  // Every 16-bit number to T and back, and numbers between: midpoints of neighbours and their neighbours.
  Array<uint16_t> all({65536}, kContiguous), back({65536}, kContiguous);
  Array<T> wide({65536}, kContiguous);
  for (int64_t i = 0; i < 65536; ++i) all[i] = static_cast<uint16_t>(i);
  const auto half_view = [dtype]<class V>(const Array<uint16_t>& x, V) {
    V v = view<V>(reinterpret_cast<const float*>(x.memory.data()), x.shape);
    v.dtype = dtype;
    return v;
  };
  isa.kernels->copy(half_view(all, In{}), wide.template as<Out>());
  isa.kernels->copy(wide.template as<In>(), half_view(back, Out{}));
  for (int64_t i = 0; i < 65536; ++i) {
    const double want = half_value(all[i], mantissa_bits, bias);
    CHECK(close(wide[i], want, 0) &&
              (std::isnan(want) || std::signbit(static_cast<double>(wide[i])) == std::signbit(want)),
          "%s dtype %d widen %lx: %g", isa.name, static_cast<int>(dtype), static_cast<long>(i),
          static_cast<double>(wide[i]));
    CHECK(std::isnan(want) ? std::isnan(half_value(back[i], mantissa_bits, bias)) : back[i] == all[i],
          "%s dtype %d round trip %lx: %x", isa.name, static_cast<int>(dtype), static_cast<long>(i), back[i]);
  }
  Numbers random(15);
  for (int64_t i = 0; i < 65536; ++i) {
    const double x = half_value(static_cast<uint16_t>(i), mantissa_bits, bias),
                 next = half_value(static_cast<uint16_t>(i + 1), mantissa_bits, bias);
    double between = std::isfinite(x) && std::isfinite(next) ? (x + next) / 2 : x * 1.001;
    if (i % 3 == 1) between = static_cast<double>(std::nextafter(static_cast<T>(between), static_cast<T>(kInf)));
    if (i % 3 == 2) between = static_cast<double>(std::nextafter(static_cast<T>(between), static_cast<T>(-kInf)));
    wide[i] = static_cast<T>(i % 7 == 0 ? between * random() : between);
  }
  isa.kernels->copy(wide.template as<In>(), half_view(back, Out{}));
  for (int64_t i = 0; i < 65536; ++i) {
    if (std::isnan(wide[i])) continue;
    const uint16_t want = nearest_half(wide[i], mantissa_bits, bias);
    CHECK(back[i] == want, "%s dtype %d from %zu bytes: %.17g gave %x, not %x", isa.name, static_cast<int>(dtype),
          sizeof(T), static_cast<double>(wide[i]), back[i], want);
  }
}

TEST(copy_half_precision) {
  for (const Isa& isa : isas()) {
    check_halves<float>(isa, DType::kF16, 10, 15);
    check_halves<double>(isa, DType::kF16, 10, 15);
    check_halves<float>(isa, DType::kBF16, 7, 127);
    check_halves<double>(isa, DType::kBF16, 7, 127);
  }
}

TEST(copy_to_integers_and_fill) {
  const double in[] = {0,   -0.0, 0.5, -0.9, 1.5,          -1.5, 254.7, 255.5,
                       300, -7,   3e9, -3e9, 2147483520.0, kInf, -kInf, kNan};
  const int32_t ints[] = {
      0, 0, 0, 0, 1, -1, 254, 255, 300, -7, 2147483647, -2147483647 - 1, 2147483520, 2147483647, -2147483647 - 1, 0};
  const uint8_t bytes[] = {0, 0, 0, 0, 1, 0, 254, 255, 255, 0, 255, 0, 255, 255, 0, 0};
  for (const Isa& isa : isas()) {
    const auto check = [&]<class T>(T) {
      Array<T> x({16}, kContiguous);
      Array<int32_t> i32({16}, kEverySecond);
      Array<uint8_t> u8({16}, kContiguous), flags({16}, kContiguous);
      for (int64_t i = 0; i < 16; ++i) x[i] = static_cast<T>(in[i]);
      isa.kernels->copy(x.template as<In>(), i32.as<Out>());
      isa.kernels->copy(x.template as<In>(), u8.as<Out>());
      isa.kernels->copy(x.template as<In>(), flags.as<Out>(DType::kBool));
      for (int64_t i = 0; i < 16; ++i) {
        CHECK(i32[i] == ints[i] && u8[i] == bytes[i] && flags[i] == (in[i] != 0), "%s %g gave %d, %d, %d", isa.name,
              in[i], i32[i], u8[i], flags[i]);
      }
    };
    check(float{}), check(double{});
    for (Layout layout : kLayouts) {
      Array<float> x({3, 50}, layout);
      Array<uint8_t> flags({3, 50}, layout);
      isa.kernels->fill(1.25, x.as<Out>());
      isa.kernels->fill(-2, flags.as<Out>(DType::kBool));
      for (int64_t i = 0; i < 150; ++i) CHECK(x[i] == 1.25f && flags[i] == 1, "%s fill", isa.name);
      float total = 0;
      for (float v : x.memory) total += v;
      CHECK(total == 150 * 1.25f, "%s fill wrote outside", isa.name);
    }
  }
}

// Philox 4x32-10 as in the paper, one block.
void philox_reference(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(a)};
    std::memcpy(c, next, sizeof c);
  }
  std::memcpy(out, c, sizeof c);
}

TEST(random_is_philox) {
  const uint32_t zero[4] = {}, ones[4] = {~0u, ~0u, ~0u, ~0u};
  const uint32_t known[2][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}};
  uint32_t words[4];
  philox_reference(zero, zero, words);
  CHECK(std::memcmp(words, known[0], 16) == 0, "known answer 0");
  philox_reference(ones, ones, words);
  CHECK(std::memcmp(words, known[1], 16) == 0, "known answer 1");
  for (const Isa& isa : isas())
    for (int64_t n : {1, 2, 3, 63, 64, 65, 1000, 40001})
      for (Layout layout : {kContiguous, kEverySecond}) {
        const int64_t seed = 0x123456789ABCDEF0, stream = -5;
        Array<float> uniform({n}, layout), normal({n}, layout);
        Array<double> uniform64({n}, layout), normal64({n}, layout);
        isa.kernels->random(Distribution::kUniform, seed, stream, uniform.as<Out>());
        isa.kernels->random(Distribution::kUniform, seed, stream, uniform64.as<Out>());
        isa.kernels->random(Distribution::kNormal, seed, stream, normal.as<Out>());
        isa.kernels->random(Distribution::kNormal, seed, stream, normal64.as<Out>());
        const uint32_t key[2] = {0x9ABCDEF0, 0x12345678};
        const auto word = [&](int64_t i) {
          const uint32_t counter[4] = {static_cast<uint32_t>(i / 4), 0, static_cast<uint32_t>(-5), ~0u};
          uint32_t block[4];
          philox_reference(counter, key, block);
          return block[i % 4];
        };
        for (int64_t i = 0; i < n; ++i) {
          CHECK(uniform[i] == static_cast<float>(word(i) >> 8) * 0x1p-24f, "%s uniform %ld", isa.name,
                static_cast<long>(i));
          CHECK(uniform64[i] == ((word(2 * i) >> 5) * 0x1p26 + (word(2 * i + 1) >> 6)) * 0x1p-53, "%s uniform64 %ld",
                isa.name, static_cast<long>(i));
          const double u1 = (word(i / 2 * 2) + 0.5) * 0x1p-32, u2 = (word(i / 2 * 2 + 1) + 0.5) * 0x1p-32,
                       angle = 2 * M_PI * u2;
          const double z = std::sqrt(-2 * std::log(u1)) * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
          CHECK(close(normal64[i], z, 1e-14) && close(normal[i], z, 1e-7), "%s normal %ld", isa.name,
                static_cast<long>(i));
        }
      }
}

double reduce_reference(ReduceOp op, const std::vector<double>& x) {
  const double n = static_cast<double>(x.size());
  double sum = 0, product = 1, max = -kInf, min = kInf, squares = 0, exponentials = 0;
  for (double v : x) {
    if (std::isnan(v)) return kNan;
    sum += v, product *= v, max = std::fmax(max, v), min = std::fmin(min, v), exponentials += std::exp(v);
  }
  for (double v : x) squares += (v - sum / n) * (v - sum / n);
  switch (op) {
    case ReduceOp::kSum:
      return sum;
    case ReduceOp::kMean:
      return sum / n;
    case ReduceOp::kMax:
      return max;
    case ReduceOp::kMin:
      return min;
    case ReduceOp::kProd:
      return product;
    case ReduceOp::kVariance:
      return squares / n;
    case ReduceOp::kLogSumExp:
      return std::log(exponentials);
  }
  return kNan;
}

template <class T>
void check_reduce(const Isa& isa, double tolerance) {
  Numbers random(16);
  const std::vector<Shape> shapes = {{1},       {17},      {200000},    {5, 7},         {2100, 3},  {3, 2100},
                                     {67, 600}, {3, 5, 9}, {70, 2, 70}, {2, 17, 3, 40}, {1, 33, 1}, {}};
  for (const Shape& shape : shapes)
    for (unsigned axes = 0; axes < 1u << shape.size(); ++axes)
      for (Layout layout : kLayouts)
        for (int nans = 0; nans < 2; ++nans) {
          Array<T> x(shape, layout);
          fill_numbers(x, random, 1, false);
          if (nans) x[static_cast<int64_t>(random.bits() % static_cast<uint64_t>(x.size()))] = static_cast<T>(kNan);
          Shape to = shape;
          for (size_t axis = 0; axis < shape.size(); ++axis)
            if (axes >> axis & 1) to[axis] = 1;
          const int64_t results = Array<T>(to, kLayouts[0]).size();
          std::vector<std::vector<double>> groups(static_cast<size_t>(results));
          for (int64_t i = 0; i < x.size(); ++i) {
            int64_t rest = i, at = 0, step = 1;
            for (size_t axis = shape.size(); axis-- > 0; rest /= shape[axis]) {
              if (!(axes >> axis & 1)) at += rest % shape[axis] * step, step *= shape[axis];
            }
            groups[at].push_back(x[i]);
          }
          const double length = static_cast<double>(x.size()) / static_cast<double>(results);
          for (int op = 0; op < kReduceOpCount; ++op) {
            Array<T> out(to, kLayouts[op % 4]);
            isa.kernels->reduce(static_cast<ReduceOp>(op), x.template as<In>(), out.template as<Out>());
            for (int64_t i = 0; i < results; ++i) {
              const double expected = reduce_reference(static_cast<ReduceOp>(op), groups[i]);
              CHECK(close(out[i], expected, tolerance * (op == 0 ? std::sqrt(length) : 1)),
                    "%s op %d %zu-byte rank %zu axes %u layout %d: got %.9g want %.9g", isa.name, op, sizeof(T),
                    shape.size(), axes, layout, static_cast<double>(out[i]), expected);
            }
          }
        }
}
TEST(reduce_float32) {
  for (const Isa& isa : isas()) check_reduce<float>(isa, 1e-6);
}
TEST(reduce_float64) {
  for (const Isa& isa : isas()) check_reduce<double>(isa, 1e-14);
}

// Sums of 0.1 are rounded, and a mean that is off by 1 ulp makes a variance of 1e-17. Few and many rows and columns, in
// one part and in several.
template <class T>
void check_variance_of_equal_numbers(const Isa& isa) {
  const std::vector<Shape> shapes = {{1}, {17}, {1000}, {200000}, {5, 700}, {2100, 3}, {3, 2100}, {4000, 600}};
  for (const Shape& shape : shapes)
    for (unsigned axes = 1; axes < 1u << shape.size(); ++axes)
      for (const double value : {0.1, -3e7, 1e-30}) {
        Array<T> x(shape, kLayouts[0]);
        for (int64_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(value);
        Shape to = shape;
        for (size_t axis = 0; axis < shape.size(); ++axis)
          if (axes >> axis & 1) to[axis] = 1;
        Array<T> out(to, kLayouts[0]);
        isa.kernels->reduce(ReduceOp::kVariance, x.template as<In>(), out.template as<Out>());
        for (int64_t i = 0; i < out.size(); ++i)
          CHECK(out[i] == 0, "%s %zu-byte %g, %ld numbers, axes %u: got %g", isa.name, sizeof(T), value,
                static_cast<long>(x.size()), axes, static_cast<double>(out[i]));
      }
}
TEST(variance_of_equal_numbers_is_zero) {
  for (const Isa& isa : isas()) {
    check_variance_of_equal_numbers<float>(isa);
    check_variance_of_equal_numbers<double>(isa);
  }
}

}  // namespace
}  // namespace llmeff::test
