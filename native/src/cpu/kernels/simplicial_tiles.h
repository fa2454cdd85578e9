// The register tiles of 2-simplicial attention: every unit of its forward and backward pass is one product of small
// matrices, C[rows, lanes] = X · Y, with Y row-major (channels or keys on the SIMD lanes) and X read by broadcasts, so
// that neither needs packing. What happens to C (store, fold with a short row, add to a gradient) is the caller's
// epilogue, on registers.
#pragma once

#include "simd.h"

namespace llmeff::cpu::LLMEFF_ISA::simplicial {

// Tile of kTileRows × two vectors: 24 of 32 registers, or 12 of 16, hold C.
#if LLMEFF_VECTOR_BYTES == 64 || defined(__aarch64__)
inline constexpr int kTileRows = 12;
#else
inline constexpr int kTileRows = 6;
#endif

// X[m, k] is x[m·ldx + k], or x[k·ldx + m] when kTransposed.
template <class T>
struct Product {
  int64_t depth;
  const T* x;
  int64_t ldx;
  const T* y;
  int64_t ldy;
};

template <bool kTransposed, int kRows, int kVectors, class T, class Epilogue>
__attribute__((noinline)) void tile(const Product<T>& p, int64_t row, int64_t lane, const Epilogue epilogue) {
  Vec<T> c[kRows][kVectors];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) c[m][v] = Vec<T>{};
  // A pointer for every third row: base + {0, 1, 2}·ldx are addressing modes, so that few strides occupy integer
  // registers.
  const T* x[(kRows + 2) / 3];
#pragma GCC unroll 4
  for (int i = 0; i < (kRows + 2) / 3; ++i) x[i] = p.x + (kTransposed ? row + 3 * i : (row + 3 * i) * p.ldx);
  const int64_t between = kTransposed ? 1 : p.ldx, step = kTransposed ? p.ldx : 1;
  const T* y = p.y + lane;
  for (int64_t k = 0; k < p.depth; ++k) {
    Vec<T> b[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) b[v] = load(y + v * kLanes<T>);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) {
      const Vec<T> a = splat(x[m / 3][m % 3 * between]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) c[m][v] += a * b[v];
    }
#pragma GCC unroll 4
    for (int i = 0; i < (kRows + 2) / 3; ++i) x[i] += step;
    y += p.ldy;
  }
  epilogue(row, lane, c);
}

template <bool kTransposed, int kVectors, class T, class Epilogue>
LLMEFF_INLINE void column_of_tiles(const Product<T>& p, int64_t rows, int64_t lane, const Epilogue& epilogue) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) tile<kTransposed, kTileRows, kVectors>(p, row, lane, epilogue);
  if constexpr (kTileRows > 8) {
    if (row + 8 <= rows) {
      tile<kTransposed, 8, kVectors>(p, row, lane, epilogue);
      row += 8;
    }
  }
  if (row + 4 <= rows) {
    tile<kTransposed, 4, kVectors>(p, row, lane, epilogue);
    row += 4;
  }
  if (row + 2 <= rows) {
    tile<kTransposed, 2, kVectors>(p, row, lane, epilogue);
    row += 2;
  }
  if (row < rows) tile<kTransposed, 1, kVectors>(p, row, lane, epilogue);
}

// Calls epilogue(row, lane, c) for tiles c[kRows][kVectors] that cover [0, rows) × [0, lanes); lanes is a multiple of
// the vector. Columns outer: a column of Y stays in the first-level cache while the rows of X pass.
template <bool kTransposed, class T, class Epilogue>
LLMEFF_INLINE void multiply(const Product<T>& p, int64_t rows, int64_t lanes, const Epilogue& epilogue) {
  int64_t lane = 0;
  for (; lane + 2 * kLanes<T> <= lanes; lane += 2 * kLanes<T>) column_of_tiles<kTransposed, 2>(p, rows, lane, epilogue);
  if (lane < lanes) column_of_tiles<kTransposed, 1>(p, rows, lane, epilogue);
}

// Horizontal sum and maximum by exchanging halves, quarters, … in registers (simd.h's go through memory): the windows
// of small models are a few vectors, and these come once for each.
template <class T>
LLMEFF_INLINE Vec<T> exchange(Vec<T> v, int64_t distance) {
#if defined(__clang__)
  Vec<T> other;
  for (int64_t i = 0; i < kLanes<T>; ++i) other[i] = v[i ^ distance];
  return other;
#else
  Mask<T> from = {};
  for (int64_t i = 0; i < kLanes<T>; ++i) from[i] = i ^ distance;
  return __builtin_shuffle(v, from);
#endif
}
template <class T>
LLMEFF_INLINE T sum_of(Vec<T> v) {
#pragma GCC unroll 4
  for (int64_t distance = kLanes<T> / 2; distance > 0; distance /= 2) v += exchange<T>(v, distance);
  return v[0];
}
template <class T>
LLMEFF_INLINE T max_of_lanes(Vec<T> v) {
#pragma GCC unroll 4
  for (int64_t distance = kLanes<T> / 2; distance > 0; distance /= 2) v = vmax(v, exchange<T>(v, distance));
  return v[0];
}

// 2^x for x < 128, polynomial of degree 6 on [-1/2, 1/2] (relative error 1e-7), 0 below 2^-125. NaN stays if its
// low bits are 0, which pack_row sees to.
LLMEFF_INLINE Vec<float> vexp2(Vec<float> x) {
  const Vec<float> magic = splat(12582912.0f);  // 1.5 · 2^23: adding it rounds to the nearest integer
  const Vec<float> shifted = x + magic;
  const Vec<float> r = x - (shifted - magic);
  Vec<float> p = splat(1.535336188e-4f);
  p = p * r + 1.339887440e-3f;
  p = p * r + 9.618437357e-3f;
  p = p * r + 5.550332471e-2f;
  p = p * r + 2.402264791e-1f;
  p = p * r + 6.931472028e-1f;
  p = p * r + 1.0f;
  // The low bits of `shifted` are the integer: added to the exponent of p. Far below, all of this is meaningless.
  typedef uint32_t Bits __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));
  Bits bits, integer;
  std::memcpy(&bits, &p, sizeof bits);
  std::memcpy(&integer, &shifted, sizeof integer);
  bits += integer << 23;
  std::memcpy(&p, &bits, sizeof p);
  return x < -125.0f ? Vec<float>{} : p;
}
LLMEFF_INLINE Vec<double> vexp2(Vec<double> x) {
  Vec<double> y = {};
  for (int64_t i = 0; i < kLanes<double>; ++i) y[i] = __builtin_exp2(x[i]);
  return y;
}

}  // namespace llmeff::cpu::LLMEFF_ISA::simplicial
