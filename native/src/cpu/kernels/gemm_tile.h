// The inner part of every product on the CPU, on one thread: a register-blocked micro-kernel and the packing that feeds
// it.
//
// A micro-tile is R rows × NV vectors of c, held in registers while k runs: per k, NV loads of b and R broadcasts of a
// feed R·NV fused multiply-adds. `b` comes in strips of kStrip columns, [k][kStrip] each, so that it streams; `a` in
// panels [k][R].
#pragma once

#include "half.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {

#if LLMEFF_VECTOR_BYTES == 64
inline constexpr int kPanel = 14;  // 28 sums + 2 of b + 1 of a, of 32 registers
#elif LLMEFF_VECTOR_BYTES == 32
inline constexpr int kPanel = 6;  // 12 sums + 2 + 1, of 16 registers
#elif defined(__aarch64__)
inline constexpr int kPanel = 12;  // 24 sums + 2 + 1, of 32 registers
#else
inline constexpr int kPanel = 5;  // 10 sums + 2 + 1 and the products, of 16 registers
#endif
template <class T>
inline constexpr int64_t kStrip = 2 * kLanes<T>;
// Rows of a that are packed at a time: they stay in the second cache.
inline constexpr int64_t kBlockRows = 112 / kPanel * kPanel;

LLMEFF_INLINE int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

// Rows of a panel when `rows` are cut evenly: 16 rows are 8 + 8, not 14 + 2.
LLMEFF_INLINE int64_t panel_rows(int64_t rows) {
  return ceil_div(rows, ceil_div(rows, kPanel));
}

// Where a tile goes: c = a·b, plus rows of `from`, where given, that lie from_row apart: those of c itself to add to
// it, or one row of biases, 0 apart. While the sums run, memory from `next` on is fetched towards the core, next_step
// elements every kFetchDepth steps of k: what the tiles after this one read.
inline constexpr int64_t kFetchDepth = 2;
template <class T>
struct TileOut {
  T* c;
  int64_t ldc;
  const T* from = nullptr;
  int64_t from_row = 0;
  const T* next = nullptr;
  int64_t next_step = 0;

  TileOut at(int64_t i, int64_t j) const {
    return {c + i * ldc + j, ldc, from == nullptr ? nullptr : from + i * from_row + j, from_row};
  }
};
template <class T>
LLMEFF_INLINE TileOut<T> tile_out(T* c, int64_t ldc, bool accumulate) {
  return {c, ldc, accumulate ? c : nullptr, ldc};
}

// One step of k: the outer product of a column of a and a row of b.
template <class T, int R, int NV, int64_t kRowStep, class B>
LLMEFF_INLINE void micro_step(const T* a, const B* b, Vec<T> (&sum)[R][NV]) {
  Vec<T> column[NV];
#pragma GCC unroll 8
  for (int j = 0; j < NV; ++j) column[j] = load(b + j * kLanes<T>);
#pragma GCC unroll 32
  for (int i = 0; i < R; ++i) {
    const Vec<T> row = splat(a[i * kRowStep]);
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) sum[i][j] += row * column[j];
  }
}

// kRowStep: distance of two rows of a when it is fixed (a row-major tile), else 1 (a packed panel). k_step: of two
// columns of a. B: T, or a 16-bit format that load() widens.
template <class T, int R, int NV, int64_t kRowStep, class B>
__attribute__((noinline)) void micro_tile(int64_t k, const T* a, int64_t k_step, const B* b, int64_t ldb,
                                          const TileOut<T>& out) {
  constexpr int64_t L = kLanes<T>;
  Vec<T> sum[R][NV];
#pragma GCC unroll 32
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) sum[i][j] = Vec<T>{};
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int64_t j = 0; j < NV * L; j += 64 / static_cast<int64_t>(sizeof(T)))
      __builtin_prefetch(out.c + i * out.ldc + j, 1);
  const T* next = out.next != nullptr ? out.next : a;
  int64_t p = 0;
  for (; p + kFetchDepth <= k; p += kFetchDepth) {
    __builtin_prefetch(next, 0, 2);
    next += out.next_step;
#pragma GCC unroll 4
    for (int step = 0; step < kFetchDepth; ++step) {
      micro_step<T, R, NV, kRowStep>(a, b, sum);
      a += k_step;
      b += ldb;
    }
  }
#pragma GCC unroll 1
  for (; p < k; ++p, a += k_step, b += ldb) micro_step<T, R, NV, kRowStep>(a, b, sum);
  if (const T* from = out.from; from != nullptr) {
#pragma GCC unroll 32
    for (int i = 0; i < R; ++i, from += out.from_row)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) sum[i][j] += load(from + j * L);
  }
  T* c = out.c;
#pragma GCC unroll 32
  for (int i = 0; i < R; ++i, c += out.ldc)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) store<T>(c + j * L, sum[i][j]);
}

template <class T, int NV, int64_t kRowStep, int R = kPanel>
LLMEFF_INLINE void micro_rows(int64_t rows, int64_t k, const T* a, int64_t k_step, const T* b, int64_t ldb,
                              const TileOut<T>& out) {
  if constexpr (R > 0) {
    if (rows == R) return micro_tile<T, R, NV, kRowStep>(k, a, k_step, b, ldb, out);
    micro_rows<T, NV, kRowStep, R - 1>(rows, k, a, k_step, b, ldb, out);
  }
}

// One tile of `rows` ≤ kPanel rows and `columns` ≤ kStrip columns; where they aren't whole vectors, by way of a tile
// that is.
template <class T, int64_t kRowStep>
__attribute__((noinline)) void micro(int64_t rows, int64_t k, const T* a, int64_t k_step, const T* b, int64_t ldb,
                                     const TileOut<T>& out, int64_t columns) {
  constexpr int64_t L = kLanes<T>, N = kStrip<T>;
  T sums[kPanel * N];
  const bool whole = columns % L == 0;
  const TileOut<T> edge = {sums, N, nullptr, 0, out.next, out.next_step};
  if (columns > L)
    micro_rows<T, 2, kRowStep>(rows, k, a, k_step, b, ldb, whole ? out : edge);
  else
    micro_rows<T, 1, kRowStep>(rows, k, a, k_step, b, ldb, whole ? out : edge);
  if (whole) return;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      out.c[i * out.ldc + j] = sums[i * N + j] + (out.from == nullptr ? T{0} : out.from[i * out.from_row + j]);
}

// ---- transposes in registers

template <int... I>
struct Lanes {};
template <int N, int... I>
struct MakeLanes : MakeLanes<N - 1, N - 1, I...> {};
template <int... I>
struct MakeLanes<0, I...> {
  using type = Lanes<I...>;
};

// Exchanges the off-diagonal S×S blocks of the pair (x, y) of rows S apart.
template <int S, int N, class V, int... I>
LLMEFF_INLINE void exchange(V& x, V& y, Lanes<I...>) {
  const V low = __builtin_shufflevector(x, y, (I & S ? I - S + N : I)...);
  y = __builtin_shufflevector(x, y, (I & S ? I + N : I + S)...);
  x = low;
}
template <int S, int N, class V>
LLMEFF_INLINE void exchange_all(V (&rows)[N]) {
  if constexpr (S < N) {
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
      if ((i & S) == 0) exchange<S, N>(rows[i], rows[i + S], typename MakeLanes<N>::type{});
    exchange_all<2 * S, N>(rows);
  }
}

// The sums over the lanes of N vectors, N ≤ kLanes a power of two: that of rows[i] in lane i.
template <int S = 1, int N, class V>
LLMEFF_INLINE V sum_lanes(V (&rows)[N]) {
  constexpr int L = LLMEFF_VECTOR_BYTES / sizeof(rows[0][0]);
  if constexpr (S == L)
    return rows[0];
  else {
#pragma GCC unroll 16
    for (int i = 0; i < N; i += 2 * S) {
      V other = rows[i + S < N ? i + S : i];
      exchange<S, L>(rows[i], other, typename MakeLanes<L>::type{});
      rows[i] += other;
    }
    return sum_lanes<2 * S>(rows);
  }
}

// to[p · to_step + i] = from[i · from_step + p] for i < width, p < k: rows of `from` become columns. Whole vectors are
// stored, in the order of p, so up to kLanes - 1 elements past the last column of each row are overwritten when width ≤
// kLanes; with to_step ≥ width the next row repairs them and the last needs room behind.
template <class T>
void pack_transposed(const T* from, int64_t from_step, T* to, int64_t to_step, int64_t width, int64_t k) {
  constexpr int64_t L = kLanes<T>;
  constexpr int64_t kAhead = 192 / static_cast<int64_t>(sizeof(T));  // more rows than the hardware follows by itself
  for (int64_t i0 = 0; i0 < width; i0 += L) {
    const int64_t lanes = smaller(L, width - i0);
    const bool whole = lanes == L || i0 == 0;
    for (int64_t p0 = 0; p0 < k; p0 += L) {
      const int64_t depth = smaller(L, k - p0);
      Vec<T> rows[L];
      if (depth == L && lanes == L) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < L; ++i) {
          const T* row = from + (i0 + i) * from_step + p0;
          __builtin_prefetch(row + kAhead, 0, 2);
          rows[i] = load(row);
        }
      } else {
#pragma GCC unroll 16
        for (int64_t i = 0; i < L; ++i) {
          const T* row = from + (i0 + i) * from_step + p0;
          __builtin_prefetch(row + kAhead, 0, 2);
          rows[i] = i >= lanes ? Vec<T>{} : depth == L ? load(row) : load_part(row, depth);
        }
      }
      exchange_all<1, static_cast<int>(L)>(rows);
      T* target = to + p0 * to_step + i0;
      if (whole && depth == L) {
#pragma GCC unroll 16
        for (int64_t p = 0; p < L; ++p) store<T>(target + p * to_step, rows[p]);
      } else {
#pragma GCC unroll 16
        for (int64_t p = 0; p < L; ++p) {
          if (p == depth) break;
          if (whole)
            store<T>(target + p * to_step, rows[p]);
          else
            store_part<T>(target + p * to_step, rows[p], lanes);
        }
      }
    }
  }
}

// to[0 … width) = from[0 … width), width < 2·H, in two overlapping pieces.
template <int H, class T>
LLMEFF_INLINE void copy_short(const T* from, T* to, int64_t width) {
  struct Piece {
    T items[H];
  };
  if (width >= H) {
    Piece first, last;
    std::memcpy(&first, from, sizeof first);
    std::memcpy(&last, from + width - H, sizeof last);
    std::memcpy(to, &first, sizeof first);
    std::memcpy(to + width - H, &last, sizeof last);
  } else if constexpr (H > 1) {
    copy_short<H / 2>(from, to, width);
  }
}

// A short row of an operand, widened where it is of a 16-bit format.
template <class S, class T>
LLMEFF_INLINE void pack_row(const S* from, T* to, int64_t width) {
  if constexpr (sizeof(S) == sizeof(T)) {
    constexpr int64_t L = kLanes<T>;
    int64_t i = 0;
    for (; i + L <= width; i += L) store<T>(to + i, load(from + i));
    copy_short<static_cast<int>(L / 2)>(from + i, to + i, width - i);
  } else {
    for (int64_t i = 0; i < width; ++i) to[i] = widen(from[i]);
  }
}

// to[p · to_step + i] = from[i · row_step + p · k_step] for i < width, p < k, where width is at most that of a strip or
// a panel. `to` needs room for kLanes elements behind its end.
template <class S, class T>
void pack_panel(const S* from, int64_t row_step, int64_t k_step, T* to, int64_t to_step, int64_t width, int64_t k) {
  if (k_step == 1) {
    if constexpr (sizeof(S) == sizeof(T)) return pack_transposed(from, row_step, to, to_step, width, k);
    constexpr int64_t kPiece = 64, kMost = kPanel < kStrip<T> ? kStrip<T> : kPanel;
    T rows[kMost * kPiece];
    for (int64_t p = 0; p < k; p += kPiece) {
      const int64_t depth = smaller(kPiece, k - p);
      for (int64_t i = 0; i < width; ++i) pack_row(from + i * row_step + p, rows + i * kPiece, depth);
      pack_transposed(rows, kPiece, to + p * to_step, to_step, width, depth);
    }
  } else if (row_step == 1) {
    for (int64_t p = 0; p < k; ++p) pack_row(from + p * k_step, to + p * to_step, width);
  } else {
    for (int64_t p = 0; p < k; ++p)
      for (int64_t i = 0; i < width; ++i) pack_row(from + i * row_step + p * k_step, to + p * to_step + i, 1);
  }
}

// b[k, n] into strips [k][kStrip], zero-padded; strips [first, last).
template <class S, class T>
void pack_b(const S* b, int64_t row_stride, int64_t col_stride, int64_t n, int64_t k, T* packed, int64_t first,
            int64_t last) {
  constexpr int64_t N = kStrip<T>, kTogether = 4;
  int64_t s = first;
  // Rows of b are read in long pieces where they are far apart in memory.
  if (col_stride == 1)
    for (; s + kTogether <= last && (s + kTogether) * N <= n; s += kTogether)
      for (int64_t p = 0; p < k; ++p)
#pragma GCC unroll 4
        for (int64_t i = s; i < s + kTogether; ++i) pack_row(b + p * row_stride + i * N, packed + i * N * k + p * N, N);
  for (; s < last; ++s) {
    const int64_t width = smaller(N, n - s * N);
    T* strip = packed + s * N * k;
    if (width < N)
      for (int64_t i = 0; i < N * k; ++i) strip[i] = 0;
    // A partial strip must not be padded with what lies behind: its whole vectors hold zeros past `width`.
    pack_panel(b + s * N * col_stride, col_stride, row_stride, strip, N, width, k);
  }
}

// a[m, k] into panels [k][panel], one after the other; the last may have fewer rows. `packed` needs kLanes elements
// more than m·k.
template <class S, class T>
void pack_a(const S* a, int64_t row_stride, int64_t col_stride, int64_t m, int64_t k, T* packed, int64_t panel) {
  // Columns of a that are contiguous are read whole, few at a time: a panel takes less than a cache line of each.
  const int64_t piece = row_stride == 1 && col_stride != 1 ? 8 : k;
  for (int64_t p = 0; p < k; p += piece)
    for (int64_t i = 0; i < m; i += panel) {
      const int64_t rows = smaller(panel, m - i);
      pack_panel(a + i * row_stride + p * col_stride, row_stride, col_stride, packed + i * k + p * rows, rows, rows,
                 smaller(piece, k - p));
    }
}

// c[m, n] (+)= packed panels · one strip, n ≤ kStrip, which stays in the near caches meanwhile; the `ahead` elements
// from `next` on are fetched piece by piece.
template <class T>
void multiply_strip(int64_t m, int64_t n, int64_t k, const T* a, int64_t panel, const T* b, int64_t ldb,
                    const TileOut<T>& out, const T* next, int64_t ahead) {
  const int64_t piece = ceil_div(ahead, ceil_div(m, panel)), step = ceil_div(piece * kFetchDepth, k);
  for (int64_t i = 0; i < m; i += panel) {
    const int64_t rows = smaller(panel, m - i);
    TileOut<T> tile = out.at(i, 0);
    tile.next = next + i / panel * piece, tile.next_step = step;
    micro<T, 1>(rows, k, a + i * k, rows, b, ldb, tile, n);
  }
}

// c[m, n] (+)= packed panels · strips.
template <class T>
void multiply_packed(int64_t m, int64_t n, int64_t k, const T* a, int64_t panel, const T* b, int64_t ldb,
                     int64_t strip_step, const TileOut<T>& out) {
  constexpr int64_t N = kStrip<T>;
  for (int64_t j = 0; j < n; j += N) {
    const T* strip = b + j / N * strip_step;
    const bool last = j + N >= n;
    multiply_strip(m, smaller(N, n - j), k, a, panel, strip, ldb, out.at(0, j), last ? strip : strip + strip_step,
                   last ? 0 : strip_step);
  }
}

// The same with a kept row-major in a tile of a fixed row length kRowStep.
template <class T, int64_t kRowStep>
void multiply_rows(int64_t m, int64_t n, int64_t k, const T* a, const T* b, int64_t ldb, int64_t strip_step, T* c,
                   int64_t ldc, bool accumulate) {
  constexpr int64_t N = kStrip<T>;
  const int64_t panel = panel_rows(m);
  const TileOut<T> out = tile_out(c, ldc, accumulate);
  for (int64_t i = 0; i < m; i += panel)
    for (int64_t j = 0; j < n; j += N)
      micro<T, kRowStep>(smaller(panel, m - i), k, a + i * kRowStep, 1, b + j / N * strip_step, ldb, out.at(i, j),
                         smaller(N, n - j));
}

// The same with a transposed: c[m, n] (+)= aᵀ·b for a row-major tile a[k, m] of row length lda.
template <class T>
void multiply_transposed(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb,
                         int64_t strip_step, T* c, int64_t ldc, bool accumulate) {
  constexpr int64_t N = kStrip<T>;
  const int64_t panel = panel_rows(m);
  const TileOut<T> out = tile_out(c, ldc, accumulate);
  for (int64_t i = 0; i < m; i += panel)
    for (int64_t j = 0; j < n; j += N)
      micro<T, 1>(smaller(panel, m - i), k, a + i, lda, b + j / N * strip_step, ldb, out.at(i, j), smaller(N, n - j));
}

}  // namespace llmeff::cpu::LLMEFF_ISA
