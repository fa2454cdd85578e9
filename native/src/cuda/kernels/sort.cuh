// Sorting rows: numbers become unsigned keys of the same order, each with its position behind it, so that no two are
// equal and any order of comparisons is stable. Tiles are sorted in shared memory by a bitonic network; longer rows
// merge sorted runs, each element finding its place in the other run by bisection.
#pragma once

#include "cuda/kernels/axes.cuh"

namespace llmeff::cuda {

// A key of 32 bits above the position, or one of 64 bits beside it.
using Item = uint64_t;
struct WideItem {
  uint64_t key, at;
};
template <class W>
struct ItemOf {
  using type = Item;
};
template <>
struct ItemOf<double> {
  using type = WideItem;
};
template <class I>
inline constexpr int kSortTile = 32768 / static_cast<int>(sizeof(I));  // items in shared memory
inline constexpr int kSortThreads = 512;

struct Sorting {
  Axes<1> rows;
  const void* x;      // or, with items, null
  const void* items;  // [rows][length]: candidates of an earlier pass
  DType dtype;
  int64_t stride, length;  // along a row
  bool descending;
  int size;            // of a tile, a power of two
  int in_block;        // items of a block: whole tiles
  int64_t tiles;       // of a row
  int64_t keep;        // the first items of each tile
  int32_t* positions;  // receives [rows][keep], if a row is one tile
  void* kept;          // else [rows][tiles · keep]; of a row at most `kept_length`
  int64_t kept_length;
};

#ifdef __CUDACC__

__device__ __forceinline__ bool before(Item a, Item b) {
  return a < b;
}
__device__ __forceinline__ bool before(const WideItem& a, const WideItem& b) {
  return a.key < b.key || (a.key == b.key && a.at < b.at);
}
__device__ __forceinline__ int32_t position_of(Item item) {
  return static_cast<int32_t>(item & 0xFFFFFFFFu);
}
__device__ __forceinline__ int32_t position_of(const WideItem& item) {
  return static_cast<int32_t>(item.at);
}
// After every item.
template <class I>
__device__ __forceinline__ I last_item() {
  if constexpr (__is_same(I, Item))
    return ~Item{0};
  else
    return {~uint64_t{0}, ~uint64_t{0}};
}

// The best has the smallest key. NaN has the largest in both orders, and −0 that of 0.
__device__ __forceinline__ Item item_of(float x, bool descending, int64_t at) {
  const uint32_t bits = __float_as_uint(x + 0.0f), ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
  const uint32_t key = x != x ? ~0u : descending ? ~ascending : ascending;
  return uint64_t{key} << 32 | static_cast<uint64_t>(at);
}
__device__ __forceinline__ Item item_of(int32_t x, bool descending, int64_t at) {
  const uint32_t ascending = static_cast<uint32_t>(x) ^ 0x80000000u;
  return uint64_t{descending ? ~ascending : ascending} << 32 | static_cast<uint64_t>(at);
}
__device__ __forceinline__ WideItem item_of(double x, bool descending, int64_t at) {
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(x + 0.0)), sign = uint64_t{1} << 63;
  const uint64_t ascending = bits & sign ? ~bits : bits | sign;
  return {x != x ? ~uint64_t{0} : descending ? ~ascending : ascending, static_cast<uint64_t>(at)};
}
// The number of an ascending item of int32.
__device__ __forceinline__ int32_t integer_of(Item item) {
  return static_cast<int32_t>(static_cast<uint32_t>(item >> 32) ^ 0x80000000u);
}

// A block sorts as many tiles as it has room for, side by side.
template <class W>
__global__ void __launch_bounds__(kSortThreads) sort_tiles_kernel(const __grid_constant__ Sorting s) {
  using I = typename ItemOf<W>::type;
  __shared__ I items[kSortTile<I>];
  const int mask = s.size - 1, tiles = s.in_block / s.size;
  for (int i = static_cast<int>(threadIdx.x); i < s.in_block; i += static_cast<int>(blockDim.x)) {
    const int64_t tile = int64_t{blockIdx.x} * tiles + i / s.size, row = tile / s.tiles;
    const int64_t e = (tile - row * s.tiles) * s.size + (i & mask);
    I item = last_item<I>();
    if (row < s.rows.count && e < s.length) {
      if (s.x == nullptr) {
        item = static_cast<const I*>(s.items)[row * s.length + e];
      } else {
        int64_t at[1];
        s.rows.locate(row, at);
        item = item_of(load_as<W>(s.dtype, s.x, at[0] + e * s.stride), s.descending, e);
      }
    }
    items[i] = item;
  }
  __syncthreads();
  for (int run = 2; run <= s.size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int pair = static_cast<int>(threadIdx.x); pair < s.in_block / 2; pair += static_cast<int>(blockDim.x)) {
        const int i = 2 * pair - (pair & (step - 1));  // the lower of two items `step` apart
        const bool up = (i & mask & run) == 0;
        const I a = items[i], b = items[i + step];
        if (before(b, a) == up) items[i] = b, items[i + step] = a;
      }
      __syncthreads();
    }
  }
  for (int i = static_cast<int>(threadIdx.x); i < s.in_block; i += static_cast<int>(blockDim.x)) {
    const int64_t tile = int64_t{blockIdx.x} * tiles + i / s.size, row = tile / s.tiles;
    const int64_t place = (tile - row * s.tiles) * s.keep + (i & mask);
    if (row >= s.rows.count || (i & mask) >= s.keep || place >= s.kept_length) continue;
    if (s.positions != nullptr)
      s.positions[row * s.kept_length + place] = position_of(items[i]);
    else
      static_cast<I*>(s.kept)[row * s.kept_length + place] = items[i];
  }
}

// Runs of `run` items, pair by pair. Positions, when wanted, are those of the first `keep` items of a row.
template <class I>
__global__ void __launch_bounds__(kThreads)
    merge_runs_kernel(const I* __restrict__ from, I* __restrict__ to, int32_t* __restrict__ positions, int64_t rows,
                      int64_t length, int64_t run, int64_t keep) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= rows * length) return;
  const int64_t row = i / length, e = i - row * length, mine = e / run, other = (mine ^ 1) * run;
  const I item = from[i];
  const I* const others = from + row * length + other;
  int64_t low = 0, high = other >= length ? 0 : min(run, length - other);
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (before(others[middle], item))
      low = middle + 1;
    else
      high = middle;
  }
  const int64_t place = (mine & ~int64_t{1}) * run + (e - mine * run) + low;
  if (positions == nullptr)
    to[row * length + place] = item;
  else if (place < keep)
    positions[row * keep + place] = position_of(item);
}

inline Sorting sorting_of(const View& x, const Loop<1>& rows, int axis, bool descending) {
  Sorting s = {};
  s.rows = Axes<1>(rows);
  s.x = x.data;
  s.dtype = x.dtype;
  s.stride = x.strides[axis];
  s.length = x.shape[axis];
  s.descending = descending;
  return s;
}

template <class W>
void choose_tiles(Sorting& s) {
  using I = typename ItemOf<W>::type;
  constexpr int64_t kSmall = 1024;  // items of a block of small tiles
  const int64_t whole = power_of_two_from(s.length < 2 ? 2 : s.length);
  s.size = static_cast<int>(whole < kSortTile<I> ? whole : kSortTile<I>);
  s.tiles = ceil_div(s.length, s.size);
  const int64_t all = s.rows.count * s.tiles;
  int64_t in_block = s.size < kSmall ? kSmall : s.size;
  while (in_block / 2 >= s.size && in_block / 2 / s.size >= all) in_block /= 2;
  s.in_block = static_cast<int>(in_block);
  if (s.keep == 0) s.keep = s.size;
}
template <class W>
void launch_sort_tiles(Context& cuda, const Sorting& s) {
  const int64_t half = s.in_block / 2, threads = half < 32 ? 32 : half < kSortThreads ? half : kSortThreads;
  sort_tiles_kernel<W>
      <<<blocks_for(s.rows.count * s.tiles, s.in_block / s.size), static_cast<unsigned>(threads), 0, cuda.stream>>>(s);
  LLMEFF_LAUNCHED("sort_tiles_kernel");
}

// Sorts rows; `positions`, if not null, receives the first `keep` of each. Else the result are the items, in memory of
// the call: [rows][length].
template <class W>
auto sort_rows(Context& cuda, Sorting s, int32_t* positions, int64_t keep) -> typename ItemOf<W>::type* {
  using I = typename ItemOf<W>::type;
  choose_tiles<W>(s);
  s.positions = s.tiles == 1 ? positions : nullptr;
  s.kept_length = s.positions != nullptr ? keep : s.length;
  I* items = s.positions != nullptr ? nullptr : cuda.scratch<I>(s.rows.count * s.length);
  s.kept = items;
  launch_sort_tiles<W>(cuda, s);
  if (s.tiles == 1) return items;
  I* spare = cuda.scratch<I>(s.rows.count * s.length);
  for (int64_t run = s.size; run < s.length; run *= 2) {
    const bool last = 2 * run >= s.length;
    merge_runs_kernel<I><<<blocks_for(s.rows.count * s.length, kThreads), kThreads, 0, cuda.stream>>>(
        items, spare, last ? positions : nullptr, s.rows.count, s.length, run, keep);
    LLMEFF_LAUNCHED("merge_runs_kernel");
    I* const sorted = spare;
    spare = items;
    items = sorted;
  }
  return items;
}

#endif

}  // namespace llmeff::cuda
