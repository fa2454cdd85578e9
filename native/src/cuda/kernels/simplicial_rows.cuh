// The rows of 2-simplicial attention (simplicial-attention.md §2, §4.2). The operation is symmetric in its two
// key/value pairs; the one with the shorter window is called a, the other b, whose rows are the "keys" of
// attention_rows.cuh. Of one query head and every short row r in its window,
//   A_r = q ∘ ka_r,   S_r = scale·A_r Kbᵀ,   o = Σ_r (P_r Vb) ∘ va_r,   Y_r = dout ∘ va_r,
// is a row of ordinary attention over the keys b, but for one softmax over all r. (Determinant form: A_r = ka_r × q in
// chunks of 3 channels, or q × ka_r when a is the first pair.) A query's windows are ranges, so that a tile, rows of
// one query, is a full rectangle: all of its rows see the same keys.
//
// The rows of a tile are the short rows of one or, where the window is short, of several heads: row n is head n /
// shorts, short row first + n % shorts.
#pragma once

#include "cuda/kernels/attention_rows.cuh"

namespace llmeff::cuda {

template <class Element>
struct SimplicialRows {
  using T = Element;
  using W = wide_t<T>;
  static constexpr bool kSimplicial = true;

  Heads<const T> q, ka, va, k, v, dout;  // k and v are those of b
  int batch, queries, shorts, keys, heads, kv_heads, group, width, value_width;
  W scale, ka_bias, va_bias, k_bias, v_bias;
  bool causal;
  int64_t window_a, window_b, shift_a, shift_b;  // shift: the position of query 0, counted from row 0 of the pair
  bool a_is_second;
  int chunks;       // 3-chunks of the determinant form; 0 in the trilinear form
  int tile_heads;   // heads of a tile
  int short_tiles;  // tiles of one head, 1 where a tile has several
  const W *lse, *delta;
  bool aligned;

  static constexpr W softcap = 0;

  // Rows [x, y) of a pair that query t sees.
  __device__ int2 window_of(int64_t window, int64_t shift, int count, int t) const {
    if (!causal) return {0, count};
    const int64_t i = shift + t, begin = window > 0 ? max(int64_t{0}, i - window + 1) : 0;
    const int64_t end = min(static_cast<int64_t>(count), i + 1);
    return {static_cast<int>(min(begin, static_cast<int64_t>(count))), static_cast<int>(max(begin, end))};
  }
  __device__ int2 shorts_of(int t) const { return window_of(window_a, shift_a, shorts, t); }
  __device__ KeyRange range_of(int t) const {
    const int2 seen = window_of(window_b, shift_b, keys, t);
    if (seen.y <= seen.x) return {INT_MAX, -1, 0, 1};
    return {seen.x, seen.y - 1, 0, 1};
  }
  __device__ __forceinline__ bool sees(int, const KeyRange& range, int j) const {
    return range.first <= j && j <= range.last;
  }

  __host__ __device__ int head_tiles() const { return (group + tile_heads - 1) / tile_heads; }

  template <int tile_rows>
  __host__ __device__ int tiles() const {
    return queries * head_tiles() * short_tiles;
  }
  template <int tile_rows>
  __device__ RowTile tile(int b, int kv_head, int index) const {
    const int part = index % short_tiles, rest = index / short_tiles;
    const int token = rest / head_tiles(), head = rest % head_tiles() * tile_heads;
    const int2 window = shorts_of(token);
    const int first = window.x + part * tile_rows, count = max(0, min(tile_rows, window.y - first));
    return {b, kv_head, first, count * min(tile_heads, group - head), token, head, count};
  }
  template <int tile_rows>
  __device__ int2 tiles_seeing(int from, int count) const {
    int64_t first = 0, last = queries - 1;
    if (causal) {
      first = max(first, from - shift_b);
      if (window_b > 0) last = min(last, from + count - 1 + window_b - 1 - shift_b);
    }
    if (last < first) return {0, 0};
    const int of_token = head_tiles() * short_tiles;
    return {static_cast<int>(first) * of_token, static_cast<int>(last + 1) * of_token};
  }

  template <class Table>
  __device__ void fill(Table& table, const RowTile& tile, bool gradient) const {
    const int n = threadIdx.x;
    if (n >= Table::kRows) return;
    KeyRange range = {INT_MAX, -1, 0, 1};
    if (n < tile.count) {
      const int h = tile.kv_head * group + tile.head + n / tile.shorts, r = tile.first + n % tile.shorts;
      range = range_of(tile.token);
      table.a[n] = q.offset(tile.b, tile.token, h);
      table.short_key[n] = ka.offset(tile.b, r, tile.kv_head);
      table.short_value[n] = va.offset(tile.b, r, tile.kv_head);
      if (gradient) {
        const int64_t at = (static_cast<int64_t>(tile.b) * heads + h) * queries + tile.token;
        table.y[n] = dout.offset(tile.b, tile.token, h);
        table.lse[n] = lse[at] * static_cast<W>(kLog2E), table.delta[n] = delta[at];
      }
    } else if (gradient) {
      table.lse[n] = table.delta[n] = 0;
    }
    table.put_range(n, range, n < tile.count);
  }

  // Component d of x × y, per chunk of 3 channels; of x ∘ y in the channels that are in no chunk.
  template <class X, class Y>
  __device__ __forceinline__ W crossed(int d, X&& x, Y&& y) const {
    if (d >= 3 * chunks) return x(d) * y(d);
    const int i = d % 3, base = d - i, next = base + (i == 2 ? 0 : i + 1), after = base + (i == 0 ? 2 : i - 1);
    return x(next) * y(after) - x(after) * y(next);
  }
  template <class Table>
  __device__ __forceinline__ W short_key(const Table& table, int n, int d) const {
    return widen<W>(ka.data[table.short_key[n] + d]) + ka_bias;
  }
  template <class Table>
  __device__ __forceinline__ W short_value(const Table& table, int n, int e) const {
    return widen<W>(va.data[table.short_value[n] + e]) + va_bias;
  }
  template <class Table>
  __device__ __forceinline__ W a(const Table& table, int n, int d) const {
    const auto query = [&](int i) { return widen<W>(q.data[table.a[n] + i]); };
    const auto key = [&](int i) { return short_key(table, n, i); };
    return a_is_second ? crossed(d, key, query) : crossed(d, query, key);
  }
  template <class Table>
  __device__ __forceinline__ W y(const Table& table, int n, int e) const {
    return widen<W>(dout.data[table.y[n] + e]) * short_value(table, n, e);
  }
  // What G adds to channel d of the key of row n's short row.
  template <class Table, class G>
  __device__ __forceinline__ W dka(const Table& table, int n, int d, G&& g) const {
    const auto query = [&](int i) { return widen<W>(q.data[table.a[n] + i]); };
    return a_is_second ? crossed(d, query, g) : crossed(d, g, query);
  }
  // What G, channels of row n, adds to channel d of dq.
  template <class Table, class G>
  __device__ __forceinline__ W dq(const Table& table, int n, int d, G&& g) const {
    const auto key = [&](int i) { return short_key(table, n, i); };
    return a_is_second ? crossed(d, g, key) : crossed(d, key, g);
  }
};

}  // namespace llmeff::cuda
