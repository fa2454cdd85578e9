// Arrays that lie in memory in various ways, with ordinary and special numbers.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lab.h"

namespace llmeff::test {

using Shape = std::vector<int64_t>;

inline constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
inline constexpr DType kFloating[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};

// Row-major, axes in reverse, rows with a gap, every second element, flipped, not aligned.
enum class Layout { kContiguous, kReversed, kPadded, kEverySecond, kFlipped, kShifted };
inline constexpr Layout kLayouts[] = {Layout::kContiguous,  Layout::kReversed, Layout::kPadded,
                                      Layout::kEverySecond, Layout::kFlipped,  Layout::kShifted};

inline int64_t product(const Shape& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}
inline Layout any_layout() {
  return kLayouts[lab().random.bits() % 6];
}

// Its memory is not set but for the poison.
inline Twin laid(DType dtype, const Shape& shape, Layout layout) {
  const int rank = static_cast<int>(shape.size());
  Shape strides(shape.size());
  int64_t step = layout == Layout::kEverySecond ? 2 : 1, offset = layout == Layout::kShifted ? 1 : 0;
  for (int i = 0; i < rank; ++i) {
    const size_t axis = static_cast<size_t>(layout == Layout::kReversed ? i : rank - 1 - i);
    strides[axis] = step;
    step = step * shape[axis] + (layout == Layout::kPadded ? 3 : 0);
    if (layout == Layout::kFlipped) {
      offset += (shape[axis] - 1) * strides[axis];
      strides[axis] = -strides[axis];
    }
  }
  return Twin(dtype, {step + 2}).as(shape, strides, offset);
}

// A view of what is there along other axes, broadcast where `axes` has a bit.
inline Twin broadcast(const Twin& x, unsigned axes) {
  Shape shape, strides;
  for (int i = 0; i < x.host().rank; ++i) {
    shape.push_back(x.host().shape[i]);
    strides.push_back(axes >> i & 1u ? 0 : x.host().strides[i]);
  }
  return x.as(shape, strides);
}

inline constexpr double kSpecial[] = {0.0, -0.0, kInf, -kInf, kNan, 1e-30, -88.5, 88.5, 1e4, -1e4, 0.625, 1.0, -1.0};

// In [-scale, scale) + offset, every third of the special ones if so asked.
inline Twin numbers(DType dtype, const Shape& shape, Layout layout, double scale, bool special = false,
                    double offset = 0) {
  Twin x = laid(dtype, shape, layout);
  Numbers& random = lab().random;
  for (int64_t i = 0; i < x.capacity(); ++i) {
    const uint64_t draw = random.bits() % 40;
    const double value = special && draw < 13 ? kSpecial[draw] : offset + scale * random();
    if (is_floating(dtype))
      x.values()[i] = value;
    else if (dtype == DType::kI32)
      x.integers()[i] = static_cast<int32_t>(std::lround(scale * random()));
    else
      x.bytes()[i] = static_cast<uint8_t>(random.bits() % (dtype == DType::kBool ? 2 : 256));
  }
  x.send(lab().cpu());
  return x;
}

// A few roundings in what is computed with, and one to the dtype that may fall to the other side.
inline double few_roundings(DType dtype, double count) {
  const bool half = dtype == DType::kBF16 || dtype == DType::kF16;
  return count * rounding(half ? DType::kF32 : dtype) + (half ? 2.1 * rounding(dtype) : 0);
}

// As Lab::expect, with what is wanted rounded to the dtype first: too large for it means infinite.
inline void expect_near(const std::string& what, const Twin& twin, double tolerance, double magnitude = 1) {
  Kernels& cpu = lab().cpu();
  std::vector<double> got = twin.received(cpu), want = twin.wanted(cpu);
  const int64_t n = static_cast<int64_t>(want.size());
  std::vector<uint8_t> raw(want.size() * static_cast<size_t>(item_size(twin.dtype())));
  cpu.copy(In{row_major(want.data(), DType::kF64, {n})}, Out{row_major(raw.data(), twin.dtype(), {n})});
  cpu.copy(In{row_major(raw.data(), twin.dtype(), {n})}, Out{row_major(want.data(), DType::kF64, {n})});
  int64_t wrong = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const bool equal = std::isnan(want[i]) ? std::isnan(got[i])
                       : std::isinf(want[i])
                           ? got[i] == want[i]
                           : std::fabs(got[i] - want[i]) <= tolerance * (magnitude + std::fabs(want[i]));
    if (!equal && ++wrong == 1)
      CHECK(equal, "%s (%s): element %zu of %zu is %.9g, not %.9g", what.c_str(), name_of(twin.dtype()), i, want.size(),
            got[i], want[i]);
  }
  if (wrong > 1) std::printf("  … and %lld more\n", static_cast<long long>(wrong - 1));
}

inline std::string text(const Shape& shape) {
  std::string s = "[";
  for (const int64_t n : shape) s += std::to_string(n) + " ";
  return s + "]";
}

}  // namespace llmeff::test
