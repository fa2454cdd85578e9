// Givens rotations of neighbouring columns, as the QR iterations of eigh and svd make them: recorded by sweep, and
// applied many sweeps at once to the vectors, which lie in panels of rows that stay in the cache and do not depend on
// each other.
#pragma once

#include "eigen.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {  // so that the tasks inside its members are symbols of one file

// c and s with c·f + s·g = r and c·g − s·f = 0.
struct Rotation {
  double c, s, r;
};
inline Rotation rotation_of(double f, double g) {
  if (g == 0) return {1, 0, f};
  if (f == 0) return {0, 1, g};
  const double squares = f * f + g * g;
  const double r = squares > 1e-280 && squares < 1e280 ? __builtin_sqrt(squares) : __builtin_hypot(f, g);
  return {f / r, g / r, r};
}

// Columns of vectors, and the rotations that they are still to take.
template <class T>
class RotatedColumns {
 public:
  // The columns begin as those of `from`. `alone`: no other matrix is worked on at the same time.
  template <class From>
  RotatedColumns(const From& from, bool alone)
      : rows_(from.rows()),
        columns_(from.cols()),
        panels_(ceil_div(rows_, kRows)),
        alone_(alone),
        numbers_(panels_ * kRows * columns_),
        cosines_(larger(kSweeps * columns_, 4096)),
        sines_(cosines_.size()),
        runs_(kRunNumbers * cosines_.size()) {
    each_panel([&](int64_t panel) {
      T* const to = numbers(panel);
      const int64_t first = panel * kRows, count = smaller(kRows, rows_ - first);
      for (int64_t j = 0; j < columns_; ++j)
        for (int64_t i = 0; i < kRows; ++i) to[j * kRows + i] = i < count ? from(first + i, j) : T(0);
    });
  }

  // A sweep of `most` rotations at most begins with columns (first, first + 1); each further one is one column on, or
  // with a step of −1 back.
  void begin(int64_t first, int64_t step, int64_t most) {
    if (used_ + most > cosines_.size()) apply();
    int64_t* const run = &runs_[kRunNumbers * run_count_++];
    run[0] = first, run[1] = step, run[2] = 0;
  }
  // (x, y) becomes (c·x + s·y, c·y − s·x).
  LLMEFF_INLINE void add(double c, double s) {
    cosines_[used_] = static_cast<T>(c), sines_[used_] = static_cast<T>(s);
    ++used_;
    ++runs_[kRunNumbers * (run_count_ - 1) + 2];
  }

  // out[i · row + j · column] = sign[j] · the element of row i in column order[j].
  void write(const int64_t* order, const double* signs, T* out, int64_t row, int64_t column) {
    apply();
    each_panel([&](int64_t panel) {
      const T* const from = numbers(panel);
      const int64_t first = panel * kRows, count = smaller(kRows, rows_ - first);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < columns_; ++j)
          out[(first + i) * row + j * column] = static_cast<T>(signs[j]) * from[order[j] * kRows + i];
    });
  }

 private:
  static constexpr int64_t kVectors = 4, kRows = kVectors * kLanes<T>;
  static constexpr int64_t kSweeps = 32;  // that are recorded before they are applied
  static constexpr int64_t kRunNumbers = 3;

  T* numbers(int64_t panel) { return numbers_.data() + panel * kRows * columns_; }

  template <class F>
  void each_panel(const F& body) {
    if (alone_)
      parallel_items(panels_, kRows * columns_, [&](int64_t panel, int) { body(panel); });
    else
      for (int64_t panel = 0; panel < panels_; ++panel) body(panel);
  }

  void apply() {
    if (used_ > 0)
      each_panel([&](int64_t panel) {
        const T *c = cosines_.data(), *s = sines_.data();
        for (int64_t run = 0; run < run_count_; ++run) {
          const int64_t* const numbers_of = &runs_[kRunNumbers * run];
          const int64_t count = numbers_of[2];
          T* const x = numbers(panel) + numbers_of[0] * kRows;
          if (numbers_of[1] > 0)
            forward(x, c, s, count);
          else
            backward(x, c, s, count);
          c += count, s += count;
        }
      });
    used_ = run_count_ = 0;
  }

  // The column that two rotations share stays in registers.
  static void forward(T* x, const T* c, const T* s, int64_t count) {
    Vec<T> held[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) held[v] = load(x + v * kLanes<T>);
    for (int64_t i = 0; i < count; ++i, x += kRows) {
      const Vec<T> ci = splat(c[i]), si = splat(s[i]);
      for (int64_t v = 0; v < kVectors; ++v) {
        const Vec<T> y = load(x + kRows + v * kLanes<T>);
        store(x + v * kLanes<T>, ci * held[v] + si * y);
        held[v] = ci * y - si * held[v];
      }
    }
    for (int64_t v = 0; v < kVectors; ++v) store(x + v * kLanes<T>, held[v]);
  }
  static void backward(T* x, const T* c, const T* s, int64_t count) {
    Vec<T> held[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) held[v] = load(x + kRows + v * kLanes<T>);
    for (int64_t i = 0; i < count; ++i, x -= kRows) {
      const Vec<T> ci = splat(c[i]), si = splat(s[i]);
      for (int64_t v = 0; v < kVectors; ++v) {
        const Vec<T> y = load(x + v * kLanes<T>);
        store(x + kRows + v * kLanes<T>, ci * held[v] - si * y);
        held[v] = ci * y + si * held[v];
      }
    }
    for (int64_t v = 0; v < kVectors; ++v) store(x + kRows + v * kLanes<T>, held[v]);
  }

  int64_t rows_, columns_, panels_;
  bool alone_;
  Vector<T> numbers_, cosines_, sines_;
  Vector<int64_t> runs_;  // first column, step, count
  int64_t used_ = 0, run_count_ = 0;
};

// The positions that sort `values`, and whether the largest come first.
inline void sort_positions(const double* values, bool descending, int64_t* order, int64_t n) {
  // Heap sort, with ties by position: the library of C++ may not be used here.
  const auto before = [&](int64_t a, int64_t b) {
    const double x = descending ? values[b] : values[a], y = descending ? values[a] : values[b];
    return x < y || (x == y && a < b);
  };
  const auto sink = [&](int64_t at, int64_t count) {
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
      if (child + 1 < count && before(order[child], order[child + 1])) ++child;
      if (!before(order[at], order[child])) return;
      const int64_t kept = order[at];
      order[at] = order[child], order[child] = kept;
    }
  };
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  for (int64_t i = n / 2; i-- > 0;) sink(i, n);
  for (int64_t last = n - 1; last > 0; --last) {
    const int64_t kept = order[0];
    order[0] = order[last], order[last] = kept;
    sink(0, last);
  }
}

}  // namespace
}  // namespace llmeff::cpu::LLMEFF_ISA
