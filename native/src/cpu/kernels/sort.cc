// argsort and top_k along the last axis.
//
// Sorting: keys and positions by a radix sort of 8-bit digits from the lowest, which is stable; digits that are equal
// everywhere cost no move. Rows go in parallel; a long row alone is cut into parts that are counted and moved in
// parallel. Short rows compare all pairs instead.
//
// Selection of k ≪ n: a heap of the k best so far, its worst on top. Vectors without a number that beats the worst are
// passed over; for numbers in random order only about k·ln(n/k) enter.
#include <cstring>

#include "cpu_kernels.h"
#include "sort_keys.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kDigits = 256;
constexpr int64_t kPart = 65536;      // elements of a part of a long row
constexpr int64_t kFewRows = 8;       // rows that are cut into parts if they are long
constexpr int64_t kPlaced = 128;      // the longest row whose places are counted
constexpr int64_t kSelectRatio = 16;  // a heap pays when k is at most this fraction of a row

// Loops over the parts of a row: inside a task, or with tasks of their own.
struct Serially {
  template <class F>
  LLMEFF_INLINE void operator()(int64_t count, const F& body) const {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
  }
};
struct InParallel {
  template <class F>
  LLMEFF_INLINE void operator()(int64_t count, const F& body) const {
    parallel_for(count, body);
  }
};

// Each key's place by counting the keys that go before it: no branches, and all pairs of a short row are soon compared.
// Indices have the width of the keys so that they share vectors.
template <class T>
void place_row(const T* row, int64_t stride, int64_t n, bool descending, int32_t* out, int64_t k) {
  typedef Key<T> K;
  K keys[kPlaced] = {}, places[kPlaced] = {};
  for (int64_t i = 0; i < n; ++i) keys[i] = key_of(row[i * stride], descending);
  for (K j = 0; j < static_cast<K>(n); ++j) {
    const K key = keys[j];
    for (K i = 0; i < static_cast<K>(n); ++i)
      places[i] += static_cast<K>(key < keys[i]) | (static_cast<K>(key == keys[i]) & static_cast<K>(j < i));
  }
  for (int64_t i = 0; i < n; ++i)
    if (static_cast<int64_t>(places[i]) < k) out[places[i]] = static_cast<int32_t>(i);
}

// Sorts into items or spare and says into which. counts: kDigits for each part.
template <class K, class Each>
Item<K>* radix_sort(Item<K>* items, Item<K>* spare, int64_t n, int64_t part, int32_t* counts, const Each& each) {
  const int64_t parts = ceil_div(n, part);
  for (unsigned shift = 0; shift < sizeof(K) * 8; shift += 8) {
    const auto digit = [shift](K key) { return static_cast<int64_t>(key >> shift & (kDigits - 1)); };
    each(parts, [&](int64_t p, int) {
      int32_t* count = counts + p * kDigits;
      for (int64_t d = 0; d < kDigits; ++d) count[d] = 0;
      for (int64_t i = p * part; i < smaller(n, (p + 1) * part); ++i) ++count[digit(items[i].key)];
    });
    int32_t start = 0;
    bool same = false;
    for (int64_t d = 0; d < kDigits; ++d) {
      const int32_t first = start;
      for (int64_t p = 0; p < parts; ++p) {
        const int32_t count = counts[p * kDigits + d];
        counts[p * kDigits + d] = start;
        start += count;
      }
      same |= start - first == n;
    }
    if (same) continue;
    each(parts, [&](int64_t p, int) {
      int32_t* place = counts + p * kDigits;
      for (int64_t i = p * part; i < smaller(n, (p + 1) * part); ++i) spare[place[digit(items[i].key)]++] = items[i];
    });
    Item<K>* const sorted = spare;
    spare = items;
    items = sorted;
  }
  return items;
}

// The first k positions of the sorted row of n elements. scratch: as scratch_bytes says.
template <class T, class Each>
void sort_row(const T* row, int64_t stride, int64_t n, bool descending, int64_t part, char* scratch, int32_t* out,
              int64_t k, const Each& each) {
  if (n <= kPlaced) return place_row(row, stride, n, descending, out, k);
  Item<Key<T>>* items = reinterpret_cast<Item<Key<T>>*>(scratch);
  each(ceil_div(n, part), [&](int64_t p, int) {
    for (int64_t i = p * part; i < smaller(n, (p + 1) * part); ++i)
      items[i] = {key_of(row[i * stride], descending), static_cast<int32_t>(i)};
  });
  items = radix_sort(items, items + n, n, part, reinterpret_cast<int32_t*>(items + 2 * n), each);
  for (int64_t i = 0; i < k; ++i) out[i] = items[i].index;
}
template <class T>
int64_t scratch_bytes(int64_t n, int64_t part) {
  return 2 * n * static_cast<int64_t>(sizeof(Item<Key<T>>)) +
         ceil_div(n, part) * kDigits * static_cast<int64_t>(sizeof(int32_t));
}

template <class T>
void sort_rows(const In& x, bool descending, const Out& out) {
  const int64_t n = x.dim(-1), stride = x.stride(-1), k = out.dim(-1);
  const Loop<1> rows = make_loop<1>({&x}, leading_axes(x.rank - 1));
  const int64_t count = rows.count(rows.rank);
  if (n > 2 * kPart && count < kFewRows) {
    char* scratch = shared_scratch<char>(scratch_bytes<T>(n, kPart));
    Cursor<1> at(rows, rows.rank, 0);
    for (int64_t row = 0; row < count; ++row, at.next())
      sort_row(x.as<T>() + at.offset[0], stride, n, descending, kPart, scratch, out.as<int32_t>() + row * k, k,
               InParallel{});
    return;
  }
  for_each_row(rows, 4 * n, [&](const int64_t* at, int64_t row, int worker) {
    sort_row(x.as<T>() + at[0], stride, n, descending, n, worker_scratch<char>(worker, scratch_bytes<T>(n, n)),
             out.as<int32_t>() + row * k, k, Serially{});
  });
}

template <class K>
void sift_down(Item<K>* heap, int64_t n, int64_t i) {
  const Item<K> item = heap[i];
  for (int64_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
    if (child + 1 < n && before(heap[child], heap[child + 1])) ++child;
    if (!before(item, heap[child])) break;
    heap[i] = heap[child];
    i = child;
  }
  heap[i] = item;
}

// Whether some x of the vector may come before the worst, whose order NaN has none of.
template <bool kLargest, class T>
LLMEFF_INLINE Mask<T> contenders(const T* p, Vec<T> worst) {
  if constexpr (kLargest)
    return ~(load(p) <= worst);
  else
    return ~(load(p) >= worst);
}
template <class M>
LLMEFF_INLINE bool any(M mask) {
  uint64_t words[sizeof(M) / 8];
  std::memcpy(words, &mask, sizeof mask);
  uint64_t all = 0;
  for (uint64_t word : words) all |= word;
  return all != 0;
}

// Makes heap[0, k) the k best of p[0, n), whose positions start at `first`; k ≤ n.
template <bool kLargest, class T>
void select(const T* p, int64_t first, int64_t n, Item<Key<T>>* heap, int64_t k) {
  for (int64_t i = 0; i < k; ++i) heap[i] = {key_of(p[i], kLargest), static_cast<int32_t>(first + i)};
  for (int64_t i = k / 2 - 1; i >= 0; --i) sift_down(heap, k, i);
  T worst = p[heap[0].index - first];
  const auto offer = [&](int64_t i) {
    if (kLargest ? p[i] <= worst : p[i] >= worst) return;
    const Key<T> key = key_of(p[i], kLargest);
    if (key >= heap[0].key) return;
    heap[0] = {key, static_cast<int32_t>(first + i)};
    sift_down(heap, k, 0);
    worst = p[heap[0].index - first];
  };
  constexpr int64_t kL = kLanes<T>;
  int64_t i = k;
  for (; i + 4 * kL <= n; i += 4 * kL) {
    const Vec<T> bar = splat(worst);
    const T* q = p + i;
    const Mask<T> a = contenders<kLargest>(q, bar), b = contenders<kLargest>(q + kL, bar);
    const Mask<T> c = contenders<kLargest>(q + 2 * kL, bar), d = contenders<kLargest>(q + 3 * kL, bar);
    if (!any((a | b) | (c | d))) continue;
    const Mask<T> hits[4] = {a, b, c, d};
    for (int64_t v = 0; v < 4; ++v)
      if (any(hits[v]))
        for (int64_t j = 0; j < kL; ++j) offer(i + v * kL + j);
  }
  for (; i < n; ++i) offer(i);
}

// Parts of rows leave their k best; then each row takes the best of its parts, in order.
template <bool kLargest, class T>
void select_rows(const In& x, const Out& out) {
  const int64_t n = x.dim(-1), stride = x.stride(-1), k = out.dim(-1);
  const Loop<1> rows = make_loop<1>({&x}, leading_axes(x.rank - 1));
  const int64_t count = rows.count(rows.rank);
  const int64_t part = count < kFewRows ? smaller(n, larger(kPart, kSelectRatio * k)) : n, parts = ceil_div(n, part);
  Item<Key<T>>* best = shared_scratch<Item<Key<T>>>(count * parts * k);
  parallel_items(count * parts, part, [&](int64_t item, int worker) {
    const int64_t first = item % parts * part, size = smaller(part, n - first);
    const T* p = x.as<T>() + Cursor<1>(rows, rows.rank, item / parts).offset[0] + first * stride;
    if (stride != 1) {
      T* packed = worker_scratch<T>(worker, part);
      for (int64_t i = 0; i < size; ++i) packed[i] = p[i * stride];
      p = packed;
    }
    select<kLargest>(p, first, size, best + item * k, smaller(k, size));
  });
  parallel_items(count, parts * k * 8, [&](int64_t row, int) {
    Item<Key<T>>* heap = best + row * parts * k;
    const int64_t last = smaller(k, n - (parts - 1) * part), candidates = (parts - 1) * k + last;
    for (int64_t i = k; i < (parts > 1 ? candidates : 0); ++i) {
      if (!before(heap[i], heap[0])) continue;
      heap[0] = heap[i];
      sift_down(heap, k, 0);
    }
    for (int64_t end = k - 1; end > 0; --end) {
      const Item<Key<T>> worst = heap[0];
      heap[0] = heap[end];
      heap[end] = worst;
      sift_down(heap, end, 0);
    }
    for (int64_t i = 0; i < k; ++i) out.as<int32_t>()[row * k + i] = heap[i].index;
  });
}

template <class T>
void top_k_as(const In& x, bool largest, const Out& out) {
  if (out.dim(-1) > x.dim(-1) / kSelectRatio)
    sort_rows<T>(x, largest, out);
  else if (largest)
    select_rows<true, T>(x, out);
  else
    select_rows<false, T>(x, out);
}

}  // namespace

void CpuKernels::argsort(const In& x, bool descending, const Out& out) {
  if (x.dtype == DType::kF64)
    sort_rows<double>(x, descending, out);
  else if (x.dtype == DType::kI32)
    sort_rows<int32_t>(x, descending, out);
  else
    sort_rows<float>(x, descending, out);
}

void CpuKernels::top_k(const In& x, bool largest, const Out& out) {
  if (x.dtype == DType::kF64)
    top_k_as<double>(x, largest, out);
  else if (x.dtype == DType::kI32)
    top_k_as<int32_t>(x, largest, out);
  else
    top_k_as<float>(x, largest, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
