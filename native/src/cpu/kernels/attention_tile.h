// What the forward and the backward pass of attention share: which keys a query sees, and how rows get into tiles.
//
// The G = H / K query heads of one key/value head are rows of one matrix: row r is position r / G of head r % G, so
// that the rows of a block see nearly the same keys. A block of rows meets kKeys keys at a time; a whole T × S matrix
// never exists.
#pragma once

#include "cpu_kernels.h"
#include "gemm_tile.h"

namespace llmeff::cpu::LLMEFF_ISA {

inline constexpr int64_t kKeys = 64;  // of a tile of scores, which is also its row length
inline constexpr int64_t kQueryRows =
    28 / kPanel * kPanel;                 // of a tile, at most: few, so that little of a masked tile is computed
inline constexpr int64_t kMinTasks = 16;  // worth splitting heads for

struct Attention {
  int64_t batch, queries, keys, heads, groups, kv_heads, width, value_width;  // B, T, S, H, G, K, D, Dv
  double scale, softcap;
  bool causal;
  int64_t window, q_offset;

  int64_t rows() const { return queries * groups; }
  // The keys that query t sees: [first, last], empty when last < first.
  int64_t first_key(int64_t t) const { return window > 0 ? larger(0, q_offset + t - window + 1) : 0; }
  int64_t last_key(int64_t t) const {
    int64_t last = keys - 1;
    if (causal)
      last = smaller(last, q_offset + t);
    else if (window > 0)
      last = smaller(last, q_offset + t + window - 1);
    return last;
  }
};

static inline __attribute__((always_inline)) Attention attention_shape(const In& q, const In& k, const In& v,
                                                                       double scale, bool causal, int64_t window,
                                                                       int64_t q_offset, double softcap) {
  return {q.shape[0], q.shape[1], k.shape[1], q.shape[2], q.shape[2] / k.shape[2],
          k.shape[2], q.shape[3], v.shape[3], scale,      softcap,
          causal,     window,     q_offset};
}

// Rows of tiles are padded to whole vectors.
template <class T>
LLMEFF_INLINE int64_t padded(int64_t width) {
  return round_up(width, kLanes<T>);
}
// Balanced blocks: 100 rows are 50 + 50 rather than 84 + 16.
LLMEFF_INLINE int64_t block_rows(int64_t rows) {
  return divide_up(rows, divide_up(rows, kQueryRows));
}

// to = from · factor, padded with zeros.
template <class T>
void copy_row(const T* from, int64_t step, int64_t width, T factor, T* to) {
  constexpr int64_t L = kLanes<T>;
  int64_t i = 0;
  if (step == 1)
    for (; i + L <= width; i += L) store<T>(to + i, load(from + i) * factor);
  for (; i < width; ++i) to[i] = from[i * step] * factor;
  for (; i < padded<T>(width); ++i) to[i] = 0;
}

// Rows [first, first + count) of one (batch, key/value head) of a view [B, T, H, width] times factor, to[count][padded
// width].
template <class T, class V>
void gather_queries(const Attention& x, const V& view, int64_t b, int64_t kv_head, int64_t first, int64_t count,
                    T factor, T* to) {
  const int64_t width = view.shape[3], padded_width = padded<T>(width);
  const T* base = view.template as<const T>() + b * view.strides[0] + kv_head * x.groups * view.strides[2];
  for (int64_t r = first; r < first + count; ++r, to += padded_width)
    copy_row(base + r / x.groups * view.strides[1] + r % x.groups * view.strides[2], view.strides[3], width, factor,
             to);
}

// The other way: to = from · factor, unpadded.
template <class T>
LLMEFF_INLINE void write_row(const T* from, int64_t width, T factor, T* to, int64_t step) {
  constexpr int64_t L = kLanes<T>;
  int64_t i = 0;
  if (step == 1)
    for (; i + L <= width; i += L) store<T>(to + i, load(from + i) * factor);
  for (; i < width; ++i) to[i * step] = from[i] * factor;
}

// Keys (or values) [first, first + count) of one (batch, key/value head), to[count][padded width].
template <class T>
void gather_keys(const In& view, int64_t b, int64_t kv_head, int64_t first, int64_t count, T* to) {
  const int64_t width = view.shape[3], padded_width = padded<T>(width);
  const T* from = view.as<const T>() + b * view.strides[0] + first * view.strides[1] + kv_head * view.strides[2];
  for (int64_t j = 0; j < count; ++j, to += padded_width)
    copy_row(from + j * view.strides[1], view.strides[3], width, T{1}, to);
}

// The same transposed, as strips for multiply_packed: room for kKeys · width elements and kLanes more.
template <class T>
void pack_keys(const In& view, int64_t b, int64_t kv_head, int64_t first, int64_t count, T* strips) {
  const T* from = view.as<const T>() + b * view.strides[0] + first * view.strides[1] + kv_head * view.strides[2];
  pack_b(from, view.strides[3], view.strides[1], count, view.shape[3], strips, 0, divide_up(count, kStrip<T>));
}

// The part of a tile of `count` keys from `j0` that a block of rows [r0, r1) sees: columns [0, columns), columns = 0
// when it sees none.
LLMEFF_INLINE int64_t visible_columns(const Attention& x, int64_t r0, int64_t r1, int64_t j0, int64_t count) {
  const int64_t t0 = r0 / x.groups, t1 = (r1 - 1) / x.groups;
  if (x.first_key(t0) > j0 + count - 1) return 0;
  return larger(0, smaller(count, x.last_key(t1) - j0 + 1));
}

// The keys of a tile that row r sees: [from, to) within it, empty when it sees none.
struct Range {
  int64_t from, to;
};
LLMEFF_INLINE Range visible_range(const Attention& x, int64_t r, int64_t j0, int64_t count) {
  const int64_t t = r / x.groups;
  return {larger(0, x.first_key(t) - j0), smaller(count, x.last_key(t) - j0 + 1)};
}
// Whether all rows of [r0, r1) see all of these keys.
LLMEFF_INLINE bool all_visible(const Attention& x, int64_t r0, int64_t r1, int64_t j0, int64_t count) {
  return x.first_key((r1 - 1) / x.groups) <= j0 && x.last_key(r0 / x.groups) >= j0 + count - 1;
}

// Whether no element is NaN or infinite, of whole vectors. A product with a weight of 0 hides finite numbers only, so
// where this is false a masked tile is multiplied row by row, each over the keys that it sees.
template <class T>
bool all_finite(const T* from, int64_t count) {
  Vec<T> sum = {};
  for (int64_t i = 0; i < count; i += kLanes<T>) sum += load(from + i) * T{0};
  return reduce_sum<T>(sum) == 0;
}

// Which lanes of one row of a tile are keys that row r sees; `whole` when all of its columns are.
template <class T>
struct RowMask {
  Vec<T> from, to;
  bool whole;

  LLMEFF_INLINE RowMask(const Attention& x, int64_t r, int64_t j0, int64_t columns) {
    const int64_t t = r / x.groups, first = x.first_key(t) - j0, last = x.last_key(t) - j0;
    whole = first <= 0 && last >= columns - 1;
    from = splat(static_cast<T>(larger(-1, smaller(first, kKeys))));
    to = splat(static_cast<T>(larger(-1, smaller(last, kKeys))));
  }
  LLMEFF_INLINE Mask<T> at(int64_t column) const {
    const Vec<T> index = iota<T>() + static_cast<T>(column);
    return (index >= from) & (index <= to);
  }
};

// tanh by exp: its absolute error is that of one rounding, which is what a capped score needs.
template <class T>
LLMEFF_INLINE Vec<T> capped_tanh(Vec<T> x) {
  return T{1} - T{2} / (vexp(x * T{2}) + T{1});
}

// The largest lane, by halves.
template <class T, int S = static_cast<int>(kLanes<T>) / 2, int... I>
LLMEFF_INLINE Vec<T> rotate_max(Vec<T> v, Lanes<I...> lanes) {
  if constexpr (S > 0) {
    return rotate_max<T, S / 2>(vmax(v, __builtin_shufflevector(v, v, (I ^ S)...)), lanes);
  } else {
    return v;
  }
}
template <class T>
LLMEFF_INLINE T lane_max(Vec<T> v) {
  return rotate_max<T>(v, typename MakeLanes<static_cast<int>(kLanes<T>)>::type{})[0];
}

}  // namespace llmeff::cpu::LLMEFF_ISA
