// What kernels over lists of arrays share: cutting the arrays into chunks of fixed size (so that results do not depend
// on the number of threads, and a thousand small arrays cost one parallel_for), and sums of squares in float64.
#pragma once

#include "half.h"
#include "llmeff/kernels.h"
#include "vector_math.h"

namespace llmeff::cpu::LLMEFF_ISA {

// Elements of a chunk: a multiple of every vector length, of 64 bytes, and small enough for a chunk of five arrays to
// stay in a core's cache.
inline constexpr int64_t kChunk = 16384;

struct Chunk {
  int64_t tensor, begin, end;
};

LLMEFF_INLINE int64_t chunks_of(int64_t elements) {
  return (elements + kChunk - 1) / kChunk;
}

template <class V>
LLMEFF_INLINE int64_t count_chunks(const List<V>& arrays) {
  int64_t count = 0;
  for (int64_t i = 0; i < arrays.size; ++i) count += chunks_of(arrays[i].size());
  return count;
}

// Writes count_chunks() chunks, those of an array next to each other and in order.
template <class V>
LLMEFF_INLINE void cut_into_chunks(const List<V>& arrays, Chunk* chunks) {
  for (int64_t i = 0; i < arrays.size; ++i) {
    const int64_t n = arrays[i].size();
    for (int64_t begin = 0; begin < n; begin += kChunk) *chunks++ = {i, begin, n - begin < kChunk ? n : begin + kChunk};
  }
}

// The optional factor of all gradients; 1 when absent.
LLMEFF_INLINE double read_scale(const In& scale) {
  if (!scale.present()) return 1.0;
  return scale.dtype == DType::kF64 ? *scale.as<double>() : static_cast<double>(*scale.as<float>());
}
LLMEFF_INLINE bool is_finite(double x) {
  return x - x == 0.0;
}

// Elements [begin, end) of a parameter into its copy, of any floating dtype.
template <class T>
LLMEFF_INLINE void copy_params(const T* p, const InOut& copy, int64_t begin, int64_t end) {
  const auto rounded = [&](auto* to) {
    for (int64_t i = begin; i < end; ++i) narrow(static_cast<float>(p[i]), to + i);
  };
  if (copy.dtype == DType::kF64)
    for (int64_t i = begin; i < end; ++i) copy.as<double>()[i] = static_cast<double>(p[i]);
  else if (copy.dtype == DType::kBF16)
    rounded(copy.as<BFloat16>());
  else if (copy.dtype == DType::kF16)
    rounded(copy.as<Float16>());
  else
    for (int64_t i = begin; i < end; ++i) copy.as<float>()[i] = static_cast<float>(p[i]);
}

// Full vectors, and the last one of an array with its n < kLanes elements and zeros after them.
template <bool kFull, class T>
LLMEFF_INLINE auto load_n(const T* p, int64_t n) {
  if constexpr (kFull)
    return load(p);
  else
    return load_part(p, n);
}
template <bool kFull, class T>
LLMEFF_INLINE void store_n(T* p, Vec<T> v, int64_t n) {
  if constexpr (kFull)
    store(p, v);
  else
    store_part(p, v, n);
}

template <class T>
LLMEFF_INLINE Vec<T> square_roots(Vec<T> x) {
  return each_lane<T>(x, [](T lane) { return root(lane); });
}

// Σ x² in float64 for float32 and float64 x: neither overflows, and the order of the additions is fixed.
template <class T>
struct SumOfSquares {
  Vec<double> low = {}, high = {};

  LLMEFF_INLINE void add(Vec<float> x) {
    // GCC makes two conversions of a loop, and twelve instructions of __builtin_convertvector on the halves.
    float lanes[kLanes<float>];
    double wide[kLanes<float>];
    store(lanes, x);
    for (int64_t i = 0; i < kLanes<float>; ++i) wide[i] = static_cast<double>(lanes[i]);
    const Vec<double> a = load(wide), b = load(wide + kLanes<double>);
    low += a * a;
    high += b * b;
  }
  LLMEFF_INLINE void add(Vec<double> x) { low += x * x; }
  LLMEFF_INLINE double total() const { return reduce_sum<double>(low + high); }
};

}  // namespace llmeff::cpu::LLMEFF_ISA
