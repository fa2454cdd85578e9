// Element-wise kernels as plain functions on contiguous arrays of the type that is computed with: views of any strides
// and of the 16-bit formats pass through short blocks on the stack, so that each function exists once and a result does
// not depend on the layout.
#pragma once

#include "half.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {

inline constexpr int64_t kRunBlock = 512;

template <class T>
inline constexpr bool kIsFloat = false;
template <>
inline constexpr bool kIsFloat<float> = true;
template <>
inline constexpr bool kIsFloat<double> = true;

template <class T>
LLMEFF_INLINE T widen(T x) {
  return x;
}
template <class T, class S>
LLMEFF_INLINE void narrow(T x, S* out) {
  *out = static_cast<S>(x);
}

// n elements of an array, `stride` apart, as contiguous numbers of T: where they lie if they are so already, else
// copied to `block`.
template <class T>
struct Reader {
  const View& view;
  int64_t stride;
  T* block;

  LLMEFF_INLINE bool direct() const { return item_size(view.dtype) == static_cast<int64_t>(sizeof(T)) && stride == 1; }
  LLMEFF_INLINE const T* read(int64_t offset, int64_t n) const {
    return direct() ? view.as<T>() + offset : copied(offset, n);
  }

 private:
  __attribute__((noinline)) const T* copied(int64_t offset, int64_t n) const {
    if constexpr (sizeof(T) == sizeof(float) && kIsFloat<T>) {
      if (view.dtype == DType::kBF16) return gathered(view.as<BFloat16>() + offset, n);
      if (view.dtype == DType::kF16) return gathered(view.as<Float16>() + offset, n);
    }
    if constexpr (sizeof(T) == sizeof(int32_t) && !kIsFloat<T>) {
      if (item_size(view.dtype) == 1) return gathered(view.as<uint8_t>() + offset, n);
    }
    return gathered(view.as<T>() + offset, n);
  }
  template <class S>
  LLMEFF_INLINE const T* gathered(const S* p, int64_t n) const {
    T* __restrict const to = block;
    if (stride == 1) {
      for (int64_t i = 0; i < n; ++i) to[i] = widen(p[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) to[i] = widen(p[i * stride]);
    }
    return block;
  }
};

// The other way: write into target(…), then flush(…).
template <class T>
struct Writer {
  const View& view;
  int64_t stride;
  T* block;

  LLMEFF_INLINE bool direct() const { return item_size(view.dtype) == static_cast<int64_t>(sizeof(T)) && stride == 1; }
  LLMEFF_INLINE T* target(int64_t offset) { return direct() ? view.as<T>() + offset : block; }
  LLMEFF_INLINE void flush(int64_t offset, int64_t n) const {
    if (!direct()) copy(offset, n);
  }

 private:
  __attribute__((noinline)) void copy(int64_t offset, int64_t n) const {
    if constexpr (sizeof(T) == sizeof(float) && kIsFloat<T>) {
      if (view.dtype == DType::kBF16) return scattered(view.as<BFloat16>() + offset, n);
      if (view.dtype == DType::kF16) return scattered(view.as<Float16>() + offset, n);
    }
    if constexpr (sizeof(T) == sizeof(int32_t) && !kIsFloat<T>) {
      if (item_size(view.dtype) == 1) return scattered(view.as<uint8_t>() + offset, n);
    }
    scattered(view.as<T>() + offset, n);
  }
  template <class S>
  LLMEFF_INLINE void scattered(S* __restrict p, int64_t n) const {
    const T* const from = block;
    if (stride == 1) {
      for (int64_t i = 0; i < n; ++i) narrow(from[i], p + i);
    } else {
      for (int64_t i = 0; i < n; ++i) narrow(from[i], p + i * stride);
    }
  }
};

// run(x, out, n) over all elements. Static, so that what it instantiates stays in this translation unit.
template <class T, class R>
static void map_runs(void (*run)(const T*, R*, int64_t), const In& x, const Out& out) {
  const Loop<2> loop = make_loop<2>({&out, &x}, leading_axes(out.rank));
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    alignas(64) R results[kRunBlock];
    alignas(64) T numbers[kRunBlock];
    Writer<R> writer{out, loop.inner_stride(0), results};
    Reader<T> reader{x, loop.inner_stride(1), numbers};
    for (int64_t i = 0; i < n; i += kRunBlock) {
      const int64_t part = smaller(kRunBlock, n - i), to = at[0] + i * writer.stride;
      run(reader.read(at[1] + i * reader.stride, part), writer.target(to), part);
      writer.flush(to, part);
    }
  });
}

// run(a, b, out, n) over all elements.
template <class T, class R>
static void map_runs(void (*run)(const T*, const T*, R*, int64_t), const In& a, const In& b, const Out& out) {
  const Loop<3> loop = make_loop<3>({&out, &a, &b}, leading_axes(out.rank));
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    alignas(64) R results[kRunBlock];
    alignas(64) T numbers[2][kRunBlock];
    Writer<R> writer{out, loop.inner_stride(0), results};
    Reader<T> first{a, loop.inner_stride(1), numbers[0]}, second{b, loop.inner_stride(2), numbers[1]};
    for (int64_t i = 0; i < n; i += kRunBlock) {
      const int64_t part = smaller(kRunBlock, n - i), to = at[0] + i * writer.stride;
      run(first.read(at[1] + i * first.stride, part), second.read(at[2] + i * second.stride, part), writer.target(to),
          part);
      writer.flush(to, part);
    }
  });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
