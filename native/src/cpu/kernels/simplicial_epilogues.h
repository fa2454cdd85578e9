// What becomes of a finished tile C[rows, lanes] (simplicial_tiles.h) while it is still in registers.
#pragma once

#include "simplicial_tiles.h"

namespace llmeff::cpu::LLMEFF_ISA::simplicial {

// C to dst[row, lane].
template <class T>
LLMEFF_INLINE auto store_to(T* dst, int64_t ld) {
  return [=]<int R, int V>(int64_t row, int64_t lane, Vec<T>(&c)[R][V]) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(dst + (row + i) * ld + lane + v * kLanes<T>, c[i][v]);
  };
}
// dst[row, lane] += C.
template <class T>
LLMEFF_INLINE auto add_to(T* dst, int64_t ld) {
  return [=]<int R, int V>(int64_t row, int64_t lane, Vec<T>(&c)[R][V]) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        T* at = dst + (row + i) * ld + lane + v * kLanes<T>;
        store(at, load(at) + c[i][v]);
      }
  };
}
// dst[row, lane] += C ∘ x[lane].
template <class T>
LLMEFF_INLINE auto add_scaled_to(T* dst, int64_t ld, const T* x) {
  return [=]<int R, int V>(int64_t row, int64_t lane, Vec<T>(&c)[R][V]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Vec<T> factor = load(x + lane + v * kLanes<T>);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        T* at = dst + (row + i) * ld + lane + v * kLanes<T>;
        store(at, load(at) + c[i][v] * factor);
      }
    }
  };
}
// dst[row, lane] += C ∘ x[lane];  total[lane] += Σ_row C ∘ rows[row, lane].
template <class T>
LLMEFF_INLINE auto add_scaled_and_fold(T* dst, const T* x, T* total, const T* rows, int64_t ld) {
  return [=]<int R, int V>(int64_t row, int64_t lane, Vec<T>(&c)[R][V]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int64_t column = lane + v * kLanes<T>;
      const Vec<T> factor = load(x + column);
      Vec<T> sum = load(total + column);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const int64_t at = (row + i) * ld + column;
        sum += c[i][v] * load(rows + at);
        store(dst + at, load(dst + at) + c[i][v] * factor);
      }
      store(total + column, sum);
    }
  };
}
// total[lane] += Σ_row C ∘ rows[row, lane].
template <class T>
LLMEFF_INLINE auto fold_into(T* total, const T* rows, int64_t ld) {
  return [=]<int R, int V>(int64_t row, int64_t lane, Vec<T>(&c)[R][V]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int64_t column = lane + v * kLanes<T>;
      Vec<T> sum = load(total + column);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) sum += c[i][v] * load(rows + (row + i) * ld + column);
      store(total + column, sum);
    }
  };
}

}  // namespace llmeff::cpu::LLMEFF_ISA::simplicial
