// What attention kernels work on: rows that meet keys. A tile of rows belongs to one (batch, key/value head); a row has
// a vector A that the keys are multiplied with, in the gradient a vector Y (dout) for the values, and a range of keys.
//
//   S = A·Kᵀ,  o = P·V,  dP = Y·Vᵀ,  G = dS·K,  dK = dSᵀ·A,  dV = Pᵀ·Y
//
// Here the rows of a key/value head are its (query, head of the group) pairs, A = q and Y = dout; simplicial_rows.cuh
// has the rows of 2-simplicial attention. The kernels themselves (attention_plain.cuh, attention_mma.cuh) serve both.
#pragma once

#include <climits>
#include <cmath>

#include "cuda/kernels/dtypes.cuh"
#include "llmeff/view.h"

namespace llmeff::cuda {

inline constexpr double kLog2E = 1.44269504088896340736;
inline constexpr double kLn2 = 0.69314718055994530942;

// A [B, N, heads, width] array with a contiguous last axis.
template <class T>
struct Heads {
  T* data = nullptr;
  int64_t batch = 0, row = 0, head = 0;

  __device__ __forceinline__ int64_t offset(int64_t b, int64_t n, int64_t h) const {
    return b * batch + n * row + h * head;
  }
  __device__ __forceinline__ T* at(int64_t b, int64_t n, int64_t h) const { return data + offset(b, n, h); }
  // Whether every row can be copied 16 bytes at a time.
  bool aligned(int64_t width) const {
    constexpr int64_t kPack = 16 / static_cast<int64_t>(sizeof(T));
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && width % kPack == 0 && batch % kPack == 0 &&
           row % kPack == 0 && head % kPack == 0;
  }
};

template <class T>
Heads<T> heads_of(const View& view) {
  return {static_cast<T*>(view.data), view.strides[0], view.strides[1], view.strides[2]};
}

// The keys of a row: some of [first, last], all of them when `solid`, else those of the document; none when last <
// first.
struct KeyRange {
  int first, last;
  int document;
  int solid;
};

// Of a tile: keys [begin, end) that some row sees; every row sees those of [all_begin, all_end).
struct KeyBounds {
  int begin, end;
  int all_begin, all_end;

  static __device__ __forceinline__ KeyBounds of_no_row() { return {INT_MAX, 0, 0, INT_MAX}; }
  __device__ __forceinline__ void add(const KeyRange& range) {
    begin = min(begin, range.first), end = max(end, range.last + 1);
    all_begin = max(all_begin, range.first), all_end = range.solid ? min(all_end, range.last + 1) : 0;
  }
  __device__ __forceinline__ void add(const KeyBounds& other) {
    begin = min(begin, other.begin), end = max(end, other.end);
    all_begin = max(all_begin, other.all_begin), all_end = min(all_end, other.all_end);
  }
  __device__ __forceinline__ bool sees(int from, int count) const { return begin < from + count && end > from; }
  __device__ __forceinline__ bool whole(int from, int count) const {
    return all_begin <= from && all_end >= from + count;
  }
};

// The share of keys that part `index` of `parts` takes, whole tiles of 64.
__device__ __forceinline__ int2 share_of(const KeyBounds& bounds, int index, int parts) {
  const int first = bounds.begin / 64 * 64, tiles = (bounds.end - first + 63) / 64;
  if (bounds.end <= bounds.begin) return {0, 0};
  const int share = (tiles + parts - 1) / parts;
  return {first + index * share * 64, min(bounds.end, first + (index + 1) * share * 64)};
}

// What the threads of a block know of the rows of its tile, in shared memory.
template <class W, int rows>
struct RowTable {
  static constexpr int kRows = rows;
  int64_t a[rows], y[rows];                    // offsets of A and Y
  int64_t short_key[rows], short_value[rows];  // simplicial rows only: of their second factors
  KeyRange range[rows];
  W lse[rows], delta[rows];  // lse to base 2
  KeyBounds bounds[rows / 32];

  // After a barrier that follows the fill.
  __device__ __forceinline__ KeyBounds all_bounds() const {
    KeyBounds all = bounds[0];
#pragma unroll
    for (int i = 1; i < rows / 32; ++i) all.add(bounds[i]);
    return all;
  }
  // By warps 0 … rows / 32 − 1, thread n with the range of row n. Rows that the tile hasn't got need no mask, since
  // their vectors are zero.
  __device__ __forceinline__ void put_range(int n, const KeyRange& of_row, bool present) {
    range[n] = of_row;
    KeyBounds warp = KeyBounds::of_no_row();
    if (of_row.first <= of_row.last)
      warp.add(of_row);
    else if (present)
      warp.all_end = 0;
    warp.begin = __reduce_min_sync(~0u, warp.begin), warp.end = __reduce_max_sync(~0u, warp.end);
    warp.all_begin = __reduce_max_sync(~0u, warp.all_begin), warp.all_end = __reduce_min_sync(~0u, warp.all_end);
    if (n % 32 == 0) bounds[n / 32] = warp;
  }
};

// A tile of rows; what its numbers mean is for the kind of rows to know.
struct RowTile {
  int b, kv_head;
  int first;        // row, or short row
  int count;        // of rows, at least 0
  int token, head;  // simplicial rows only: the query, its first head in the tile
  int shorts;       // rows of one head
};

template <class Element>
struct AttentionRows {
  using T = Element;
  using W = wide_t<T>;
  static constexpr bool kSimplicial = false;

  Heads<const T> q, k, v, dout;
  int batch, queries, keys, heads, kv_heads, group, width, value_width;
  W scale, softcap;
  bool causal;
  int64_t window, q_offset;
  const int32_t *k_doc, *prefix;
  int64_t k_doc_batch, k_doc_row, prefix_batch, prefix_row;
  const KeyRange* ranges;  // [B, T], with documents
  const W *lse, *delta;    // [B, H, T], in the gradient
  bool aligned;            // rows of q, k, v and dout for 16-byte copies

  static constexpr W k_bias = 0, v_bias = 0;

  // Narrows the range of a document, or of all keys, by the other masks; a prefix counts from the document's start.
  __device__ KeyRange narrowed(KeyRange range, int b, int t) const {
    const int64_t i = q_offset + t;
    int64_t first = range.first, last = range.last;
    if (causal) {
      const int64_t free = prefix == nullptr ? 0 : prefix[b * prefix_batch + t * prefix_row];
      last = min(last, max(i, first + free - 1));
    }
    if (window > 0) {
      first = max(first, i - window + 1);
      if (!causal) last = min(last, i + window - 1);
    }
    if (last < first) return {INT_MAX, -1, range.document, 1};
    return {static_cast<int>(first), static_cast<int>(last), range.document, range.solid};
  }
  __device__ KeyRange range_of(int b, int t) const {
    if (ranges != nullptr) return ranges[static_cast<int64_t>(b) * queries + t];
    return narrowed({0, keys - 1, 0, 1}, b, t);
  }
  __device__ __forceinline__ int document(int b, int j) const { return k_doc[b * k_doc_batch + j * k_doc_row]; }
  __device__ __forceinline__ bool sees(int b, const KeyRange& range, int j) const {
    return range.first <= j && j <= range.last && (range.solid || document(b, j) == range.document);
  }

  __host__ __device__ int64_t rows() const { return static_cast<int64_t>(queries) * group; }

  // Tile `index` of those of one (b, kv_head).
  template <int tile_rows>
  __host__ __device__ int tiles() const {
    return static_cast<int>((rows() + tile_rows - 1) / tile_rows);
  }
  template <int tile_rows>
  __device__ RowTile tile(int b, int kv_head, int index) const {
    const int64_t first = static_cast<int64_t>(index) * tile_rows;
    return {b, kv_head, static_cast<int>(first), static_cast<int>(min(int64_t{tile_rows}, rows() - first)), 0, 0, 0};
  }
  // The tiles [x, y) whose rows may see some of the keys [from, from + count).
  template <int tile_rows>
  __device__ int2 tiles_seeing(int from, int count) const {
    int2 seen = {0, tiles<tile_rows>()};
    if (k_doc != nullptr || prefix != nullptr) return seen;
    int64_t first = 0, last = queries - 1;
    if (causal) first = max(first, from - q_offset);
    if (window > 0) {
      last = min(last, from + count - 1 + window - 1 - q_offset);
      if (!causal) first = max(first, from - window + 1 - q_offset);
    }
    if (last < first) return {0, 0};
    return {static_cast<int>(first * group / tile_rows), static_cast<int>(((last + 1) * group - 1) / tile_rows) + 1};
  }

  template <class Table>
  __device__ void fill(Table& table, const RowTile& tile, bool gradient) const {
    const int n = threadIdx.x;
    if (n >= Table::kRows) return;
    KeyRange range = {INT_MAX, -1, 0, 1};
    if (n < tile.count) {
      const int row = tile.first + n, t = row / group, h = tile.kv_head * group + row % group;
      range = range_of(tile.b, t);
      table.a[n] = q.offset(tile.b, t, h);
      if (gradient) {
        const int64_t at = (static_cast<int64_t>(tile.b) * heads + h) * queries + t;
        table.y[n] = dout.offset(tile.b, t, h);
        table.lse[n] = lse[at] * static_cast<W>(kLog2E), table.delta[n] = delta[at];
      }
    } else if (gradient) {
      table.lse[n] = table.delta[n] = 0;
    }
    table.put_range(n, range, n < tile.count);
  }

  // Channel d of A and of Y in row n < count.
  template <class Table>
  __device__ __forceinline__ W a(const Table& table, int n, int d) const {
    return widen<W>(q.data[table.a[n] + d]);
  }
  template <class Table>
  __device__ __forceinline__ W y(const Table& table, int n, int e) const {
    return widen<W>(dout.data[table.y[n] + e]);
  }
};

}  // namespace llmeff::cuda
