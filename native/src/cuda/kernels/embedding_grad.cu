// Gradient of an embedding: dtable[v] = Σ of the rows of dout whose id is v. The ids are sorted with their positions,
// which leaves equal ids in the order of the rows; so every row of the table finds its rows of dout side by side:
//
//   key      id of each position; bad ids are reported and become V, which is no row
//   sort     (id, position), stable
//   starts   starts[v] = the first sorted place with an id ≥ v, for v ≤ V
//   short    a warp for every row of the table with up to kLong rows of dout, most often none: it writes the sum
//   long     kWarps warps for a row of the table with more; each adds up a range, the ranges are added in order
//   huge     a row with more than kHuge, as of padding: in parts of kSegment sorted places, then the parts in order
#include <cub/device/device_radix_sort.cuh>

#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/rows.cuh"
#include "cuda/kernels/value_checks.h"

namespace llmeff::cuda {
namespace {

constexpr int kLong = 32, kHuge = 1024, kSegment = 256;
constexpr int kWarps = 16, kAhead = 8;  // kAhead: rows that are loaded before the first is added

__global__ void embedding_keys_kernel(const int32_t* ids, int count, int vocabulary, int32_t* keys, int32_t* positions,
                                      ValueCheck check) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int32_t id = ids[i];
  const bool good = id >= 0 && id < vocabulary;
  if (!good) check.bad(i, id);
  keys[i] = good ? id : vocabulary;
  positions[i] = i;
}

__global__ void embedding_starts_kernel(const int32_t* sorted, int count, int vocabulary, int32_t* starts) {
  const int v = blockIdx.x * blockDim.x + threadIdx.x;
  if (v > vocabulary) return;
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (sorted[middle] < v)
      low = middle + 1;
    else
      high = middle;
  }
  starts[v] = low;
}

template <class T>
struct EmbeddingGrad {
  const T* dout;
  const int32_t *positions, *starts;
  T* dtable;
  RowMap dout_rows;
  int count, vocabulary, width;
};

// Adds the rows of the sorted places [begin, end) to sum, in order.
template <class T, int kPack>
__device__ void add_rows(const EmbeddingGrad<T>& a, int begin, int end, int column, wide_t<T> (&sum)[kPack]) {
  using W = wide_t<T>;
  for (int place = begin; place < end; place += kAhead) {
    Group<T, kPack> rows[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (place + k < end) rows[k] = load_group<kPack>(a.dout + a.dout_rows(a.positions[place + k]) + column);
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (place + k < end)
#pragma unroll
        for (int e = 0; e < kPack; ++e) sum[e] += widen<W>(rows[k].at[e]);
  }
}

template <class T, int kPack>
__device__ void write_row(const EmbeddingGrad<T>& a, int v, int column, const wide_t<T> (&sum)[kPack]) {
  Group<T, kPack> out;
#pragma unroll
  for (int e = 0; e < kPack; ++e) out.at[e] = narrow<T>(sum[e]);
  store_group(a.dtable + static_cast<int64_t>(v) * a.width + column, out);
}

template <class T, int kPack>
__global__ void __launch_bounds__(256) embedding_grad_short_kernel(const __grid_constant__ EmbeddingGrad<T> a) {
  const int v = blockIdx.x * 8 + threadIdx.y;
  if (v >= a.vocabulary) return;
  const int begin = a.starts[v], end = a.starts[v + 1];
  if (end - begin > kLong) return;
  for (int column = threadIdx.x * kPack; column < a.width; column += 32 * kPack) {
    wide_t<T> sum[kPack] = {};
    add_rows<T, kPack>(a, begin, end, column, sum);
    write_row<T, kPack>(a, v, column, sum);
  }
}

// sum = Σ over [begin, end), of which add(first, last, sum) adds a range: one for each warp; for the first warp.
template <int kPack, class W, class F>
__device__ __forceinline__ void sum_over_warps(int begin, int end, W (&sum)[kPack], F&& add) {
  __shared__ W parts[kWarps][32][kPack];
  const int per_warp = (end - begin + kWarps - 1) / kWarps, first = begin + threadIdx.y * per_warp;
#pragma unroll
  for (int e = 0; e < kPack; ++e) sum[e] = 0;
  add(first, first + per_warp < end ? first + per_warp : end, sum);
#pragma unroll
  for (int e = 0; e < kPack; ++e) parts[threadIdx.y][threadIdx.x][e] = sum[e];
  __syncthreads();
  if (threadIdx.y == 0)
    for (int warp = 1; warp < kWarps; ++warp)
#pragma unroll
      for (int e = 0; e < kPack; ++e) sum[e] += parts[warp][threadIdx.x][e];
  __syncthreads();
}

// Block x looks at the sorted place kLong·x: of every run of more than kLong places, the first such place does it all.
template <class T, int kPack>
__global__ void __launch_bounds__(32 * kWarps)
    embedding_grad_long_kernel(const __grid_constant__ EmbeddingGrad<T> a, const int32_t* sorted) {
  const int place = blockIdx.x * kLong, v = sorted[place];
  if (v >= a.vocabulary) return;
  const int begin = a.starts[v], end = a.starts[v + 1];
  if (end - begin <= kLong || end - begin > kHuge || place - begin >= kLong) return;
  const int column = (blockIdx.y * 32 + threadIdx.x) * kPack;
  wide_t<T> sum[kPack];
  sum_over_warps(begin, end, sum, [&](int first, int last, wide_t<T>(&some)[kPack]) {
    if (column < a.width) add_rows<T, kPack>(a, first, last, column, some);
  });
  if (threadIdx.y == 0 && column < a.width) write_row<T, kPack>(a, v, column, sum);
}

// The run that a sorted place belongs to.
struct Run {
  int v, begin, end;
};
template <class T>
__device__ __forceinline__ bool is_in_huge_run(const EmbeddingGrad<T>& a, const int32_t* sorted, int place, Run& run) {
  run.v = sorted[place];
  if (run.v >= a.vocabulary) return false;
  run.begin = a.starts[run.v], run.end = a.starts[run.v + 1];
  return run.end - run.begin > kHuge;
}

// Sums of the huge runs within each segment of kSegment places, of which there are at most two: one that comes from the
// segment before, parts[2·x], and one that begins here, parts[2·x + 1]; each [width].
template <class T, int kPack>
__global__ void __launch_bounds__(32 * kWarps)
    embedding_grad_parts_kernel(const __grid_constant__ EmbeddingGrad<T> a, const int32_t* sorted, wide_t<T>* parts) {
  const int from = blockIdx.x * kSegment, to = from + kSegment < a.count ? from + kSegment : a.count;
  const int column = (blockIdx.y * 32 + threadIdx.x) * kPack;
  for (int which = 0; which < 2; ++which) {
    Run run;
    if (!is_in_huge_run(a, sorted, which == 0 ? from : to - 1, run) || (run.begin < from) != (which == 0)) continue;
    wide_t<T> sum[kPack];
    sum_over_warps(which == 0 ? from : run.begin, run.end < to ? run.end : to, sum,
                   [&](int first, int last, wide_t<T>(&some)[kPack]) {
                     if (column < a.width) add_rows<T, kPack>(a, first, last, column, some);
                   });
    if (threadIdx.y > 0 || column >= a.width) continue;
#pragma unroll
    for (int e = 0; e < kPack; ++e) parts[(int64_t{2} * blockIdx.x + which) * a.width + column + e] = sum[e];
  }
}

// The block of the segment in which a huge run begins adds up its parts.
template <class T, int kPack>
__global__ void __launch_bounds__(32 * kWarps)
    embedding_grad_huge_kernel(const __grid_constant__ EmbeddingGrad<T> a, const int32_t* sorted,
                               const wide_t<T>* parts) {
  const int from = blockIdx.x * kSegment, to = from + kSegment < a.count ? from + kSegment : a.count;
  Run run;
  if (!is_in_huge_run(a, sorted, to - 1, run) || run.begin < from) return;
  const int column = (blockIdx.y * 32 + threadIdx.x) * kPack,
            segments = (run.end - 1) / kSegment + 1 - static_cast<int>(blockIdx.x);
  wide_t<T> sum[kPack];
  sum_over_warps(0, segments, sum, [&](int first, int last, wide_t<T>(&some)[kPack]) {
    if (column >= a.width) return;
    for (int i = first; i < last; ++i) {
      const int64_t part = int64_t{2} * (blockIdx.x + i) + (i == 0);
#pragma unroll
      for (int e = 0; e < kPack; ++e) some[e] += parts[part * a.width + column + e];
    }
  });
  if (threadIdx.y == 0 && column < a.width) write_row<T, kPack>(a, run.v, column, sum);
}

}  // namespace

void CudaKernels::embedding_grad(const In& dout, const In& ids, const Out& dtable) {
  const int64_t total = ids.size();
  if (total > INT32_MAX - kLong)
    fail("ERR_SHAPE", "[embedding] the gradient of %lld ids at once is not supported.", static_cast<long long>(total));
  const int count = static_cast<int>(total), vocabulary = static_cast<int>(dtable.shape[0]);
  int32_t* const keys = cuda_.scratch<int32_t>(4 * total + vocabulary + 1);
  int32_t *const positions = keys + total, *const sorted = positions + total, *const ordered = sorted + total,
                 *const starts = ordered + total;
  embedding_keys_kernel<<<ceil_div(total, 256), 256, 0, cuda_.stream>>>(ids.as<int32_t>(), count, vocabulary, keys,
                                                                        positions, check_ids(cuda_, vocabulary));
  LLMEFF_LAUNCHED("embedding_keys_kernel");
  int bits = 1;
  while (vocabulary >> bits != 0) ++bits;
  size_t bytes = 0;
  LLMEFF_CUDA(
      cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sorted, positions, ordered, count, 0, bits, cuda_.stream));
  LLMEFF_CUDA(cub::DeviceRadixSort::SortPairs(cuda_.scratch_bytes(bytes), bytes, keys, sorted, positions, ordered,
                                              count, 0, bits, cuda_.stream));
  embedding_starts_kernel<<<ceil_div(vocabulary + 1, 256), 256, 0, cuda_.stream>>>(sorted, count, vocabulary, starts);
  LLMEFF_LAUNCHED("embedding_starts_kernel");

  const bool aligned = rows_aligned({&dout, &dtable});
  with_floating(dout.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    const EmbeddingGrad<T> a = {dout.as<T>(),  ordered, starts,     dtable.as<T>(),
                                row_map(dout), count,   vocabulary, static_cast<int>(dtable.shape[1])};
    const auto launch = [&]<int kPack>() {
      embedding_grad_short_kernel<T, kPack><<<ceil_div(vocabulary, 8), dim3(32, 8), 0, cuda_.stream>>>(a);
      LLMEFF_LAUNCHED("embedding_grad_short_kernel");
      if (count <= kLong) return;
      const dim3 threads(32, kWarps);
      const auto slabs = static_cast<unsigned>(ceil_div(a.width, 32 * kPack));
      embedding_grad_long_kernel<T, kPack>
          <<<dim3(ceil_div(count, kLong), slabs), threads, 0, cuda_.stream>>>(a, sorted);
      LLMEFF_LAUNCHED("embedding_grad_long_kernel");
      if (count <= kHuge) return;
      const int64_t segments = ceil_div(count, kSegment);
      wide_t<T>* const parts = cuda_.scratch<wide_t<T>>(2 * segments * a.width);
      embedding_grad_parts_kernel<T, kPack><<<dim3(segments, slabs), threads, 0, cuda_.stream>>>(a, sorted, parts);
      LLMEFF_LAUNCHED("embedding_grad_parts_kernel");
      embedding_grad_huge_kernel<T, kPack><<<dim3(segments, slabs), threads, 0, cuda_.stream>>>(a, sorted, parts);
      LLMEFF_LAUNCHED("embedding_grad_huge_kernel");
    };
    if (aligned)
      launch.template operator()<Pack<T>::kSize>();
    else
      launch.template operator()<1>();
  });
}

}  // namespace llmeff::cuda
