// Where a tile holds all short rows of a head, the backward kernel that owns the rows of a query makes beside dq what
// the query's heads add to the gradients of its short rows (simplicial-attention.md §4.2, the variant of six units),
//   dq_h = Σ_r G_hr∘ka_r,   dka_r += Σ_h G_hr∘q_h,   dva_r += Σ_h (P_hr Vb)∘dout_h,
// strips of [short rows, D] and [short rows, Dv] for each query. Another kernel adds the strips up, in the order of the
// queries; both go over the queries in segments, so that the strips take a bounded amount of memory.
#pragma once

#include "cuda/kernels/attention_launch.cuh"
#include "cuda/kernels/simplicial_rows.cuh"

namespace llmeff::cuda {

template <class W>
struct Strips {
  int first, count;  // of the segment's queries
  int reach;         // short rows of a strip
  int parts;         // of a query's heads
  W *dka, *dva;      // [B, K, count, parts, reach, D or Dv]
};

// Adds the strips of a segment to those of the segments before. A thread for each channel of a short row. `sum` holds
// the sums between segments; the last segment's go to `out`.
template <class T, class W = wide_t<T>>
__global__ __launch_bounds__(256) void add_strips_kernel(SimplicialRows<T> rows, Strips<W> strips, const W* strip,
                                                         int width, W factor, bool first, bool last, W* sum, T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const int64_t size = static_cast<int64_t>(rows.batch) * rows.shorts * rows.kv_heads * width;
  if (i >= size) return;
  const int channel = static_cast<int>(i % width), kv_head = static_cast<int>(i / width % rows.kv_heads);
  const int r = static_cast<int>(i / width / rows.kv_heads % rows.shorts);
  const int b = static_cast<int>(i / width / rows.kv_heads / rows.shorts);
  int64_t begin = strips.first, end = strips.first + strips.count;
  if (rows.causal) {
    begin = max(begin, r - rows.shift_a);
    if (rows.window_a > 0) end = min(end, r - rows.shift_a + rows.window_a);
  }
  W total = first ? W{0} : sum[i];
  for (int64_t t = begin; t < end; ++t) {
    const int row = r - rows.shorts_of(static_cast<int>(t)).x;
    const int64_t at = (static_cast<int64_t>(b) * rows.kv_heads + kv_head) * strips.count + (t - strips.first);
    for (int part = 0; part < strips.parts; ++part)
      total += strip[((at * strips.parts + part) * strips.reach + row) * width + channel];
  }
  if (last)
    out[i] = narrow<T>(total * factor);
  else
    sum[i] = total;
}

// Short rows of a strip.
template <class T>
int strip_reach(const SimplicialRows<T>& rows) {
  if (!rows.causal || rows.window_a == 0) return rows.shorts;
  return static_cast<int>(std::min<int64_t>(rows.shorts, rows.window_a));
}

inline constexpr int64_t kStripBytes = int64_t{256} << 20;

// dk and dv of the short pair: body(strips, B·K) launches the kernel that fills them, `chunks` blocks for each query.
template <class T, class F>
void for_strips(Context& cuda, const SimplicialRows<T>& rows, const View& dka, const View& dva, int chunks, F&& body) {
  using W = wide_t<T>;
  Strips<W> strips = {};
  const int64_t heads = static_cast<int64_t>(rows.batch) * rows.kv_heads;
  strips.reach = strip_reach(rows);
  strips.parts = parts_for(cuda, heads * rows.queries * chunks, rows.head_tiles(), 1);
  const int64_t of_query = heads * strips.parts * strips.reach;
  const int64_t bytes = of_query * (rows.width + rows.value_width) * static_cast<int64_t>(sizeof(W));
  const int64_t at_once = std::max<int64_t>(1, std::min<int64_t>(rows.queries, kStripBytes / bytes));
  strips.dka = cuda.scratch<W>(at_once * of_query * rows.width);
  strips.dva = cuda.scratch<W>(at_once * of_query * rows.value_width);
  const bool segments = at_once < rows.queries;
  W* const dka_sum = segments ? cuda.scratch<W>(dka.size()) : nullptr;
  W* const dva_sum = segments ? cuda.scratch<W>(dva.size()) : nullptr;
  for (int64_t first = 0; first < rows.queries; first += at_once) {
    strips.first = static_cast<int>(first);
    strips.count = static_cast<int>(std::min<int64_t>(at_once, rows.queries - first));
    body(strips, heads);
    const bool last = first + strips.count == rows.queries;
    const auto add = [&](const W* strip, int channels, W factor, W* sum, const View& out) {
      add_strips_kernel<T><<<static_cast<unsigned>((out.size() + 255) / 256), 256, 0, cuda.stream>>>(
          rows, strips, strip, channels, factor, first == 0, last, sum, out.as<T>());
      LLMEFF_LAUNCHED("add_strips_kernel");
    };
    add(strips.dka, rows.width, rows.scale, dka_sum, dka);
    add(strips.dva, rows.value_width, W{1}, dva_sum, dva);
  }
}

}  // namespace llmeff::cuda
