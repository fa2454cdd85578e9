#include "cuda/kernels/attention_parts.h"

#include "cuda/check.h"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256;

inline unsigned blocks_for(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

template <class T>
__global__ __launch_bounds__(kThreads) void merge_parts_kernel(AttentionOutput<T> out) {
  using W = wide_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t rows = static_cast<int64_t>(out.batch) * out.queries * out.heads, size = rows * out.value_width;
  if (i >= size) return;
  const int e = static_cast<int>(i % out.value_width);
  const int64_t row = i / out.value_width;
  const int h = static_cast<int>(row % out.heads), t = static_cast<int>(row / out.heads % out.queries);
  const int b = static_cast<int>(row / out.heads / out.queries);
  const int64_t stat = (static_cast<int64_t>(b) * out.heads + h) * out.queries + t;
  W top = -INFINITY;
  for (int part = 0; part < out.parts; ++part) top = max(top, out.part_lse[part * rows + stat]);
  const W shift = top == -INFINITY ? W{0} : top;
  W sum = 0, value = 0;
  for (int part = 0; part < out.parts; ++part) {
    const W weight = exp(out.part_lse[part * rows + stat] - shift);
    sum += weight;
    // A part whose keys this row doesn't see left 0.
    value += weight * out.part_o[part * size + i];
  }
  out.o.at(b, t, h)[e] = narrow<T>(sum == 0 ? W{0} : value / sum);
  if (e == 0) out.lse[stat] = top + log(sum);
}

template <class T>
__global__ __launch_bounds__(kThreads) void add_parts_kernel(PartialSum<T> sum) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= sum.size) return;
  wide_t<T> total = 0;
  for (int part = 0; part < sum.parts; ++part) total += sum.partial[part * sum.size + i];
  sum.out[i] = narrow<T>(total);
}

// A warp for each row.
template <class T>
__global__ __launch_bounds__(kThreads) void delta_kernel(Heads<const T> dout, Heads<const T> o, const wide_t<T>* dlse,
                                                         int64_t rows, int queries, int heads, int width,
                                                         wide_t<T>* delta) {
  using W = wide_t<T>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32;
  const int h = static_cast<int>(row % heads), t = static_cast<int>(row / heads % queries);
  const int b = static_cast<int>(row / heads / queries);
  const T *const from = dout.at(b, t, h), *const value = o.at(b, t, h);
  W sum = 0;
  for (int e = lane; e < width; e += 32) sum = fma(widen<W>(from[e]), widen<W>(value[e]), sum);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (lane != 0) return;
  const int64_t at = (static_cast<int64_t>(b) * heads + h) * queries + t;
  delta[at] = sum - (dlse == nullptr ? W{0} : dlse[at]);
}

// A block for 64 queries, which mostly are of one document or two: its keys are looked for once for each.
template <class T>
__global__ __launch_bounds__(kThreads) void document_ranges_kernel(AttentionRows<T> rows, const int32_t* q_doc,
                                                                   int64_t q_doc_batch, int64_t q_doc_row,
                                                                   KeyRange* ranges) {
  __shared__ int firsts[kThreads / 32], lasts[kThreads / 32], counts[kThreads / 32];
  const int b = blockIdx.y;
  KeyRange document = {INT_MAX, -1, 0, 1};
  for (int i = 0; i < 64; ++i) {
    const int t = blockIdx.x * 64 + i;
    if (t >= rows.queries) return;
    const int32_t wanted = q_doc[b * q_doc_batch + t * q_doc_row];
    if (i == 0 || wanted != document.document) {
      int first = INT_MAX, last = -1, count = 0;
      for (int j = threadIdx.x; j < rows.keys; j += kThreads)
        if (rows.document(b, j) == wanted) first = min(first, j), last = j, ++count;
      first = __reduce_min_sync(~0u, first), last = __reduce_max_sync(~0u, last), count = __reduce_add_sync(~0u, count);
      __syncthreads();
      if (threadIdx.x % 32 == 0) {
        const int warp = threadIdx.x / 32;
        firsts[warp] = first, lasts[warp] = last, counts[warp] = count;
      }
      __syncthreads();
      count = 0;
      for (int warp = 0; warp < kThreads / 32; ++warp)
        first = min(first, firsts[warp]), last = max(last, lasts[warp]), count += counts[warp];
      document = {first, last, wanted, count == last - first + 1};
    }
    if (threadIdx.x != 0) continue;
    KeyRange& range = ranges[static_cast<int64_t>(b) * rows.queries + t];
    if (document.last < 0)
      range = {INT_MAX, -1, wanted, 1};
    else
      range = rows.narrowed(document, b, t);
  }
}

}  // namespace

template <class T>
AttentionOutput<T> attention_output(Context& cuda, const View& o, const View& lse, int parts) {
  using W = wide_t<T>;
  AttentionOutput<T> out = {heads_of<T>(o),
                            lse.as<W>(),
                            parts,
                            nullptr,
                            nullptr,
                            static_cast<int>(o.shape[0]),
                            static_cast<int>(o.shape[1]),
                            static_cast<int>(o.shape[2]),
                            static_cast<int>(o.shape[3])};
  if (parts > 1) out.part_o = cuda.scratch<W>(parts * o.size()), out.part_lse = cuda.scratch<W>(parts * lse.size());
  return out;
}

template <class T>
void merge_parts(Context& cuda, const AttentionOutput<T>& out) {
  if (out.parts == 1) return;
  const int64_t size = static_cast<int64_t>(out.batch) * out.queries * out.heads * out.value_width;
  merge_parts_kernel<<<blocks_for(size, kThreads), kThreads, 0, cuda.stream>>>(out);
  LLMEFF_LAUNCHED("merge_parts_kernel");
}

template <class T>
PartialSum<T> partial_sum(Context& cuda, const View& out, int parts) {
  return {out.as<T>(), parts, parts > 1 ? cuda.scratch<wide_t<T>>(parts * out.size()) : nullptr, out.size()};
}

template <class T>
void add_parts(Context& cuda, const PartialSum<T>& sum) {
  if (sum.parts == 1) return;
  add_parts_kernel<<<blocks_for(sum.size, kThreads), kThreads, 0, cuda.stream>>>(sum);
  LLMEFF_LAUNCHED("add_parts_kernel");
}

template <class T>
void attention_delta(Context& cuda, const View& dout, const View& o, const View& dlse, wide_t<T>* delta) {
  const int64_t rows = o.shape[0] * o.shape[1] * o.shape[2];
  delta_kernel<T><<<blocks_for(rows, kThreads / 32), kThreads, 0, cuda.stream>>>(
      heads_of<const T>(dout), heads_of<const T>(o), dlse.as<const wide_t<T>>(), rows, static_cast<int>(o.shape[1]),
      static_cast<int>(o.shape[2]), static_cast<int>(o.shape[3]), delta);
  LLMEFF_LAUNCHED("delta_kernel");
}

template <class T>
void fill_document_ranges(Context& cuda, const View& q_doc, AttentionRows<T>& rows) {
  if (!q_doc.present()) return;
  KeyRange* const ranges = cuda.scratch<KeyRange>(static_cast<int64_t>(rows.batch) * rows.queries);
  const dim3 grid(blocks_for(rows.queries, 64), static_cast<unsigned>(rows.batch));
  document_ranges_kernel<<<grid, kThreads, 0, cuda.stream>>>(rows, q_doc.as<const int32_t>(), q_doc.strides[0],
                                                             q_doc.strides[1], ranges);
  LLMEFF_LAUNCHED("document_ranges_kernel");
  rows.ranges = ranges;
}

#define LLMEFF_INSTANTIATE(T)                                                                    \
  template AttentionOutput<T> attention_output<T>(Context&, const View&, const View&, int);      \
  template void merge_parts<T>(Context&, const AttentionOutput<T>&);                             \
  template PartialSum<T> partial_sum<T>(Context&, const View&, int);                             \
  template void add_parts<T>(Context&, const PartialSum<T>&);                                    \
  template void attention_delta<T>(Context&, const View&, const View&, const View&, wide_t<T>*); \
  template void fill_document_ranges<T>(Context&, const View&, AttentionRows<T>&);
LLMEFF_INSTANTIATE(float)
LLMEFF_INSTANTIATE(double)
LLMEFF_INSTANTIATE(bf16)
LLMEFF_INSTANTIATE(f16)
#undef LLMEFF_INSTANTIATE

}  // namespace llmeff::cuda
