// Walking several views of one shape together: axes that lie behind each other in all of them are merged, so that most
// tensors become one long run, and the work is cut into blocks whose size does not depend on the number of threads.
#pragma once

#include "llmeff/parallel.h"
#include "llmeff/view.h"
#include "simd.h"

namespace llmeff::cpu::LLMEFF_ISA {

template <>
struct VectorOf<int32_t> {
  typedef int32_t type __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));
  typedef int32_t mask __attribute__((vector_size(LLMEFF_VECTOR_BYTES)));
};

// What sums and products are computed in: integers wrap around, as only unsigned ones may.
LLMEFF_INLINE Vec<float> wrapping(Vec<float> x) {
  return x;
}
LLMEFF_INLINE Vec<double> wrapping(Vec<double> x) {
  return x;
}
LLMEFF_INLINE WordLanes wrapping(Vec<int32_t> x) {
  return (WordLanes)x;
}

inline constexpr int64_t kBlock = 16384;  // elements that are worth a task

LLMEFF_INLINE int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
LLMEFF_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
LLMEFF_INLINE int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
// How far apart neighbours lie; the strides of flipped views are negative.
LLMEFF_INLINE int64_t distance(int64_t stride) {
  return stride < 0 ? -stride : stride;
}

// visit(bits) with a number as wide as an element, by its size: what moves elements needn't know what they are.
template <class F>
LLMEFF_INLINE void with_width(int64_t size, const F& visit) {
  switch (size) {
    case 8:
      return visit(uint64_t{});
    case 4:
      return visit(uint32_t{});
    case 2:
      return visit(uint16_t{});
    default:
      return visit(uint8_t{});
  }
}

// Bit set of the first `count` axes.
LLMEFF_INLINE unsigned leading_axes(int count) {
  return (1u << count) - 1u;
}

template <int N>
struct Loop {
  int rank = 0;  // at least 1 once made
  int64_t shape[kMaxRank] = {};
  int64_t strides[N][kMaxRank] = {};

  int64_t count(int axes) const {
    int64_t n = 1;
    for (int i = 0; i < axes; ++i) n *= shape[i];
    return n;
  }
  int64_t inner() const { return shape[rank - 1]; }
  int64_t inner_stride(int view) const { return strides[view][rank - 1]; }
};

// The loop over those axes (a bit set) of the views; their sizes are those of views[0].
template <int N>
Loop<N> make_loop(const View* const (&views)[N], unsigned axes) {
  Loop<N> loop;
  for (int axis = 0; axis < views[0]->rank; ++axis) {
    const int64_t size = views[0]->shape[axis];
    if (!(axes >> axis & 1u) || size == 1) continue;
    bool merge = loop.rank > 0;
    for (int k = 0; k < N && merge; ++k) merge = loop.strides[k][loop.rank - 1] == size * views[k]->strides[axis];
    if (!merge) loop.shape[loop.rank++] = 1;
    loop.shape[loop.rank - 1] *= size;
    for (int k = 0; k < N; ++k) loop.strides[k][loop.rank - 1] = views[k]->strides[axis];
  }
  if (loop.rank == 0) {
    loop.rank = 1;
    loop.shape[0] = 1;
    for (int k = 0; k < N; ++k) loop.strides[k][0] = 1;
  }
  return loop;
}

// A position in the first `axes` axes of a loop, in row-major order, with the offset it has in each view.
template <int N>
struct Cursor {
  const Loop<N>& loop;
  int axes;
  int64_t index[kMaxRank] = {};
  int64_t offset[N] = {};

  LLMEFF_INLINE Cursor(const Loop<N>& over, int axis_count, int64_t position) : loop(over), axes(axis_count) {
    for (int i = axes - 1; i >= 0 && position > 0; --i) {
      index[i] = position % loop.shape[i];
      position /= loop.shape[i];
      for (int k = 0; k < N; ++k) offset[k] += index[i] * loop.strides[k][i];
    }
  }
  LLMEFF_INLINE void next() {
    for (int i = axes - 1; i >= 0; --i) {
      for (int k = 0; k < N; ++k) offset[k] += loop.strides[k][i];
      if (++index[i] < loop.shape[i]) return;
      for (int k = 0; k < N; ++k) offset[k] -= loop.shape[i] * loop.strides[k][i];
      index[i] = 0;
    }
  }
};

// body(i, worker) for i in [0, count), in tasks of as many items as make a block.
template <class F>
LLMEFF_INLINE void parallel_items(int64_t count, int64_t item_elements, const F& body) {
  const int64_t per_task = larger(1, kBlock / larger(1, item_elements));
  parallel_for(ceil_div(count, per_task), [&](int64_t task, int worker) {
    const int64_t end = smaller(count, (task + 1) * per_task);
    for (int64_t i = task * per_task; i < end; ++i) body(i, worker);
  });
}

// body(offsets, row, worker) for every position of the loop.
template <int N, class F>
LLMEFF_INLINE void for_each_row(const Loop<N>& loop, int64_t row_elements, const F& body) {
  const int64_t rows = loop.count(loop.rank);
  const int64_t per_task = larger(1, kBlock / larger(1, row_elements));
  parallel_for(ceil_div(rows, per_task), [&](int64_t task, int worker) {
    const int64_t end = smaller(rows, (task + 1) * per_task);
    Cursor<N> at(loop, loop.rank, task * per_task);
    for (int64_t row = task * per_task; row < end; ++row, at.next()) body(at.offset, row, worker);
  });
}

// body(offsets, n): n elements along the last axis of the loop from those offsets on. Where a view is strided along
// that axis, short pieces of many neighbouring rows go together, so that the cache lines of one row still lie in the
// cache for the next.
template <int N, class F>
LLMEFF_INLINE void for_each_run(const Loop<N>& loop, const F& body) {
  const int outer = loop.rank - 1;
  const int64_t n = loop.inner(), rows = loop.count(outer);
  bool strided = false;
  for (int k = 0; k < N; ++k) strided = strided || (loop.inner_stride(k) != 0 && loop.inner_stride(k) != 1);
  const int64_t piece = smaller(n, strided && rows > 1 ? 128 : kBlock), pieces = ceil_div(n, piece),
                per_task = kBlock / piece;
  parallel_for(ceil_div(rows, per_task) * pieces, [&](int64_t task, int) {
    const int64_t first = task / pieces * per_task, start = task % pieces * piece, count = smaller(piece, n - start);
    Cursor<N> at(loop, outer, first);
    for (int k = 0; k < N; ++k) at.offset[k] += start * loop.inner_stride(k);
    for (int64_t row = first; row < smaller(rows, first + per_task); ++row, at.next()) body(at.offset, count);
  });
}

// n ≤ kLanes elements at any stride; the other lanes are zero.
template <class T>
LLMEFF_INLINE Vec<T> gather(const T* p, int64_t stride, int64_t n) {
  if (stride == 1 && n == kLanes<T>) return load(p);
  T lanes[kLanes<T>] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i * stride];
  return load(lanes);
}
template <class T>
LLMEFF_INLINE void scatter(T* p, int64_t stride, Vec<T> v, int64_t n) {
  if (stride == 1 && n == kLanes<T>) return store(p, v);
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i * stride] = lanes[i];
}

// out[i] = f(x[i]…), vector by vector, of contiguous arrays.
template <class T, class F, class... X>
LLMEFF_INLINE void map_vectors(int64_t n, const F& f, T* out, const X*... x) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) store(out + i, f(load(x + i)...));
  if (i < n) scatter(out + i, 1, f(gather(x + i, 1, n - i)...), n - i);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
