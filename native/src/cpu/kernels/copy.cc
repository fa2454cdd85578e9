// copy and fill. Equal dtypes are moved as unsigned integers of their size: whole blocks by memcpy, a transposition in
// tiles that stay in the first-level cache, anything else row by row. Different dtypes convert row by row.
//
// Conversions: float → float rounds to nearest, ties to even (float64 → 16 bits without rounding twice); float →
// integer truncates, saturates at the ends of the range and turns NaN into 0; int32 → uint8 keeps the low 8 bits; →
// bool is x != 0.
#include <cstring>

#include "cpu_kernels.h"
#include "half.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

struct Bool {
  uint8_t value;
};

LLMEFF_INLINE float widen(Bool x) {
  return x.value != 0 ? 1.0f : 0.0f;
}
template <class T>
LLMEFF_INLINE T widen(T x) {
  return x;
}

// float64 → float32 rounding to odd: a later rounding to 16 bits then gives what one rounding would have given.
LLMEFF_INLINE float to_odd(double x) {
  const float nearest = static_cast<float>(x);
  const uint32_t bits = bits_of(nearest);
  const double error = __builtin_fabs(x) - __builtin_fabs(static_cast<double>(nearest));
  const bool adjust = (bits & 1) == 0 && (error > 0 || error < 0) && (bits & 0x7FFFFFFF) < 0x7F800000;
  return float_of(adjust ? (error > 0 ? bits + 1 : bits - 1) : bits);
}
LLMEFF_INLINE void narrow(double x, BFloat16* out) {
  narrow(to_odd(x), out);
}
LLMEFF_INLINE void narrow(double x, Float16* out) {
  narrow(to_odd(x), out);
}
LLMEFF_INLINE void narrow(int32_t x, BFloat16* out) {
  narrow(to_odd(x), out);
}
LLMEFF_INLINE void narrow(int32_t x, Float16* out) {
  narrow(to_odd(x), out);
}
LLMEFF_INLINE void narrow(uint8_t x, BFloat16* out) {
  narrow(static_cast<float>(x), out);
}
LLMEFF_INLINE void narrow(uint8_t x, Float16* out) {
  narrow(static_cast<float>(x), out);
}
template <class T>
LLMEFF_INLINE void narrow(T x, Bool* out) {
  out->value = x != T(0);
}
template <class T>
LLMEFF_INLINE void narrow(T x, float* out) {
  *out = static_cast<float>(x);
}
template <class T>
LLMEFF_INLINE void narrow(T x, double* out) {
  *out = static_cast<double>(x);
}
LLMEFF_INLINE void narrow(int32_t x, int32_t* out) {
  *out = x;
}
LLMEFF_INLINE void narrow(uint8_t x, int32_t* out) {
  *out = x;
}
LLMEFF_INLINE void narrow(double x, int32_t* out) {
  const double kept = x > -2147483648.0 ? x : -2147483648.0;
  *out = x != x ? 0 : kept >= 2147483647.0 ? 2147483647 : static_cast<int32_t>(kept);
}
LLMEFF_INLINE void narrow(float x, int32_t* out) {
  const float kept = x > -2147483648.0f ? x : -2147483648.0f;
  *out = x != x ? 0 : kept >= 2147483648.0f ? 2147483647 : static_cast<int32_t>(kept);
}
LLMEFF_INLINE void narrow(int32_t x, uint8_t* out) {
  *out = static_cast<uint8_t>(x);
}
LLMEFF_INLINE void narrow(uint8_t x, uint8_t* out) {
  *out = x;
}
template <class T>
LLMEFF_INLINE void narrow(T x, uint8_t* out) {
  *out = x > T(0) ? (x < T(255) ? static_cast<uint8_t>(static_cast<int32_t>(x)) : uint8_t{255}) : uint8_t{0};
}

// Conversion of n numbers that touch.
using Convert = void (*)(const void* from, void* to, int64_t n);

template <class From, class To>
void convert_run(const void* from, void* to, int64_t n) {
  const From* __restrict p = static_cast<const From*>(from);
  To* __restrict o = static_cast<To*>(to);
  for (int64_t i = 0; i < n; ++i) narrow(widen(p[i]), o + i);
}

// visit(item) with an item of the type that a dtype stands for.
template <class F>
LLMEFF_INLINE auto with_type(DType dtype, const F& visit) {
  switch (dtype) {
    case DType::kF32:
      return visit(float{});
    case DType::kF64:
      return visit(double{});
    case DType::kBF16:
      return visit(BFloat16{});
    case DType::kF16:
      return visit(Float16{});
    case DType::kI32:
      return visit(int32_t{});
    case DType::kU8:
      return visit(uint8_t{});
    default:
      return visit(Bool{});
  }
}

Convert conversion(DType from, DType to) {
  return with_type(from, [to](auto x) {
    return with_type(to, [](auto y) -> Convert { return convert_run<decltype(x), decltype(y)>; });
  });
}

template <class T>
void move_run(const void* from, int64_t from_stride, void* to, int64_t to_stride, int64_t n) {
  const T* p = static_cast<const T*>(from);
  T* o = static_cast<T*>(to);
  if (to_stride == 1 && from_stride == 1) {
    std::memmove(o, p, static_cast<size_t>(n) * sizeof(T));
  } else if (to_stride == 1 && from_stride == 0) {
    const T value = *p;
    for (int64_t i = 0; i < n; ++i) o[i] = value;
  } else {
    for (int64_t i = 0; i < n; ++i) o[i * to_stride] = p[i * from_stride];
  }
}

void move_items(int64_t size, const void* from, int64_t from_stride, void* to, int64_t to_stride, int64_t n) {
  with_width(size, [=]<class T>(T) { move_run<T>(from, from_stride, to, to_stride, n); });
}

// Numbers that don't touch pass through blocks.
void convert(const In& x, const Out& out) {
  constexpr int64_t kPiece = 512;
  const Convert run = conversion(x.dtype, out.dtype);
  const Loop<2> loop = make_loop<2>({&out, &x}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0), sx = loop.inner_stride(1);
  const int64_t to_size = item_size(out.dtype), from_size = item_size(x.dtype);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    alignas(64) char numbers[kPiece * sizeof(double)], results[kPiece * sizeof(double)];
    for (int64_t i = 0; i < n; i += kPiece) {
      const int64_t part = smaller(kPiece, n - i);
      const char* p = static_cast<const char*>(x.data) + (at[1] + i * sx) * from_size;
      char* const o = static_cast<char*>(out.data) + (at[0] + i * so) * to_size;
      if (sx != 1) {
        move_items(from_size, p, sx, numbers, 1, part);
        p = numbers;
      }
      run(p, so == 1 ? o : results, part);
      if (so != 1) move_items(to_size, results, 1, o, so, part);
    }
  });
}

// The axis along which x is contiguous when out is contiguous along another one, its last; else -1.
int transposed_axis(const Loop<2>& loop) {
  if (loop.inner_stride(0) != 1 || loop.inner_stride(1) == 1) return -1;
  for (int axis = 0; axis < loop.rank - 1; ++axis)
    if (loop.strides[1][axis] == 1 && loop.shape[axis] >= 4) return axis;
  return -1;
}

// out[i][j] = tile[j][i], for a whole tile in 4 × 4 blocks of two rounds of interleaving.
template <class T, int64_t kWidth, int64_t kHeight>
LLMEFF_INLINE void write_transposed(const T (&tile)[kWidth][kHeight], int64_t height, T* out, int64_t stride) {
  int64_t i = 0;
  if constexpr (sizeof(T) == 4) {
    typedef T Four __attribute__((vector_size(16)));
    for (; i + 4 <= height; i += 4) {
#pragma GCC unroll 4
      for (int64_t j = 0; j < kWidth; j += 4) {
        Four in[4];
#pragma GCC unroll 4
        for (int64_t k = 0; k < 4; ++k) std::memcpy(&in[k], &tile[j + k][i], sizeof in[k]);
        const Four a = in[0], b = in[1], c = in[2], d = in[3];
        const Four ab0 = {a[0], b[0], a[1], b[1]}, ab2 = {a[2], b[2], a[3], b[3]};
        const Four cd0 = {c[0], d[0], c[1], d[1]}, cd2 = {c[2], d[2], c[3], d[3]};
        const Four rows[4] = {{ab0[0], ab0[1], cd0[0], cd0[1]},
                              {ab0[2], ab0[3], cd0[2], cd0[3]},
                              {ab2[0], ab2[1], cd2[0], cd2[1]},
                              {ab2[2], ab2[3], cd2[2], cd2[3]}};
#pragma GCC unroll 4
        for (int64_t k = 0; k < 4; ++k) std::memcpy(out + (i + k) * stride + j, &rows[k], sizeof rows[k]);
      }
    }
  }
  for (; i < height; ++i)
    for (int64_t j = 0; j < kWidth; ++j) out[i * stride + j] = tile[j][i];
}

// out[…, i, …, j] = x[…]: tiles of kHeight × kWidth over (i, j), where x is contiguous along i and out along j. A tile
// is wide enough for whole cache lines of out and several of x, which spares page translations when the strides are
// large.
template <class T>
void transpose(const In& x, const Out& out, Loop<2> loop, int axis) {
  constexpr int64_t kWidth = sizeof(T) < 4 ? 32 : 16, kHeight = 64;
  const int last = loop.rank - 1;
  const int64_t rows = loop.shape[axis], columns = loop.shape[last];
  const int64_t out_stride = loop.strides[0][axis], x_stride = loop.strides[1][last];
  loop.shape[axis] = 1;
  const int64_t strips = ceil_div(rows, kHeight);
  parallel_items(loop.count(last) * strips, kHeight * columns, [&](int64_t item, int) {
    const Cursor<2> at(loop, last, item / strips);
    const int64_t row = item % strips * kHeight, height = smaller(kHeight, rows - row);
    T* o = out.as<T>() + at.offset[0] + row * out_stride;
    const T* p = x.as<T>() + at.offset[1] + row;
    for (int64_t column = 0; column < columns; column += kWidth) {
      const int64_t width = smaller(kWidth, columns - column);
      T tile[kWidth][kHeight];
      if (height == kHeight) {
        for (int64_t j = 0; j < width; ++j) std::memcpy(tile[j], p + (column + j) * x_stride, sizeof tile[j]);
      } else {
        for (int64_t j = 0; j < width; ++j)
          for (int64_t i = 0; i < height; ++i) tile[j][i] = p[(column + j) * x_stride + i];
      }
      if (width == kWidth) {
        write_transposed(tile, height, o + column, out_stride);
      } else {
        for (int64_t i = 0; i < height; ++i)
          for (int64_t j = 0; j < width; ++j) o[i * out_stride + column + j] = tile[j][i];
      }
    }
  });
}

template <class T>
void move(const In& x, const Out& out) {
  const Loop<2> loop = make_loop<2>({&out, &x}, leading_axes(out.rank));
  if (const int axis = transposed_axis(loop); axis >= 0) return transpose<T>(x, out, loop, axis);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    move_run<T>(x.as<T>() + at[1], loop.inner_stride(1), out.as<T>() + at[0], loop.inner_stride(0), n);
  });
}

template <class T>
void fill_with(T value, const Out& out) {
  const Loop<1> loop = make_loop<1>({&out}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    T* o = out.as<T>() + at[0];
    if (so == 1) {
      for (int64_t i = 0; i < n; ++i) o[i] = value;
    } else {
      for (int64_t i = 0; i < n; ++i) o[i * so] = value;
    }
  });
}

}  // namespace

void CpuKernels::copy(const In& x, const Out& out) {
  if (x.dtype != out.dtype) return convert(x, out);
  with_width(item_size(x.dtype), [&]<class T>(T) { move<T>(x, out); });
}

void CpuKernels::fill(double value, const Out& out) {
  with_type(out.dtype, [&](auto item) {
    narrow(value, &item);
    fill_with(item, out);
  });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
