// The backward kernel that owns the rows of a query, where a tile holds all short rows of a head: beside dq it makes what
// the query's heads add to the gradients of its short rows (simplicial-attention.md §4.2, the variant of six units),
//   dq_h = Σ_r G_hr∘ka_r,   dka_r += Σ_h G_hr∘q_h,   dva_r += Σ_h (P_hr Vb)∘dout_h,
// strips of [short rows, D] and [short rows, Dv] in float32 for each query. Another kernel adds the strips up, in the
// order of the queries; both go over the queries in segments, so that the strips take a bounded amount of memory.
#pragma once

#include "cuda/kernels/attention_launch.cuh"
#include "cuda/kernels/attention_mma.cuh"
#include "cuda/kernels/simplicial_rows.cuh"

namespace llmeff::cuda {

template <int width>
inline constexpr int kStripKeys = width > 64 ? 32 : 64;  // of a tile

template <int width>
struct SimplicialStripShared {
  __align__(128) unsigned char a[kMmaRows * width * 2];
  __align__(128) unsigned char y[kMmaRows * width * 2];
  __align__(128) unsigned char k[2][kStripKeys<width> * width * 2];
  __align__(128) unsigned char v[2][kStripKeys<width> * width * 2];
  RowTable<float, kMmaRows> table;
  // When the products of a tile are done.
  __device__ float* outputs() { return reinterpret_cast<float*>(k); }
};
static_assert(4 * kStripKeys<128> * 2 >= kMmaRows * static_cast<int>(sizeof(float)));

struct Strips {
  int first, count;   // of the segment's queries
  int reach;          // short rows of a strip
  int parts;          // of a query's heads
  float *dka, *dva;   // [B, K, count, parts, reach, D or Dv]
};

// G = dS·K and PV = P·V of a tile; the table is filled, and the block has passed a barrier since.
template <int width, class Rows>
__device__ __forceinline__ void mma_row_products(const Rows& rows, const RowTile& at,
                                                 SimplicialStripShared<width>& shared, const KeyBounds& bounds,
                                                 float (&products)[width / 8][4], float (&outputs)[width / 8][4]) {
  using T = typename Rows::T;
  constexpr int kKeys = kStripKeys<width>, kTiles = kKeys / 8;
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16, g = lane / 4, t = lane % 4;
  const MmaLogits logits(rows);
#pragma unroll
  for (int n = 0; n < width / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) products[n][e] = outputs[n][e] = 0;
  put_keys<width, kKeys>(rows, at.b, at.kv_head, bounds.begin, bounds.end, shared.k[0]);
  put_values<width, kKeys>(rows, at.b, at.kv_head, bounds.begin, bounds.end, shared.v[0]);
  put_rows<width, kMmaRows, kMmaThreads>(rows, shared.table, at.count, false, shared.a);
  put_rows<width, kMmaRows, kMmaThreads>(rows, shared.table, at.count, true, shared.y);
  copies_done();
  __syncthreads();
  add_biases<width>(rows, shared.table, shared.a, shared.y);
  __syncthreads();
  const float lse[2] = {shared.table.lse[row + g], shared.table.lse[row + g + 8]};
  const float delta[2] = {shared.table.delta[row + g], shared.table.delta[row + g + 8]};
  float slopes[2] = {0, 0}, weights[2] = {0, 0};  // of this lane, for the biases
  int stage = 0;
  for (int j0 = bounds.begin; j0 < bounds.end; j0 += kKeys, stage ^= 1) {
    if (j0 + kKeys < bounds.end) {
      put_keys<width, kKeys>(rows, at.b, at.kv_head, j0 + kKeys, bounds.end, shared.k[stage ^ 1]);
      put_values<width, kKeys>(rows, at.b, at.kv_head, j0 + kKeys, bounds.end, shared.v[stage ^ 1]);
    }
    const uint32_t k = shared_address(shared.k[stage]), v = shared_address(shared.v[stage]);
    float p[kTiles][4] = {}, ds[kTiles][4] = {};
    add_scores<T, width, kTiles>(p, shared_address(shared.a), row, k);
    add_scores<T, width, kTiles>(ds, shared_address(shared.y), row, v);
    // All rows of a tile see the same keys, so that only the last tile can have columns that they don't see.
    const int present = bounds.end - j0;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float2 both = slope_of(logits, p[n][e], ds[n][e], lse[e / 2], delta[e / 2]);
        const bool seen = 8 * n + 2 * t + e % 2 < present;
        p[n][e] = seen ? both.x : 0.0f, ds[n][e] = seen ? both.y : 0.0f;
        weights[e / 2] += p[n][e], slopes[e / 2] += ds[n][e];
      }
    add_weighted<T, width>(products, ds, k);
    add_weighted<T, width>(outputs, p, v);
    copies_done();
    __syncthreads();
  }
  if (rows.k_bias != 0 || rows.v_bias != 0) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      slopes[half] = rows.k_bias * quad_sum(slopes[half]), weights[half] = rows.v_bias * quad_sum(weights[half]);
#pragma unroll
    for (int n = 0; n < width / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) products[n][e] += slopes[e / 2], outputs[n][e] += weights[e / 2];
  }
}

// Fragments of a block's rows to [64, width] in shared memory.
template <int width>
__device__ __forceinline__ void put_outputs(const float (&acc)[width / 8][4], float* outputs) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int c = 0; c < width / 8; ++c)
      *reinterpret_cast<float2*>(outputs + (row + 8 * half) * width + 8 * c + lane % 4 * 2) =
          make_float2(acc[c][2 * half], acc[c][2 * half + 1]);
}

// blockIdx: x a query of a head of keys, the last first; y a part of its heads.
template <int width, class T>
__global__ __launch_bounds__(kMmaThreads) void simplicial_rows_mma_kernel(SimplicialRows<T> rows, Strips strips, T* dq) {
  extern __shared__ __align__(128) unsigned char bytes[];
  auto& shared = *reinterpret_cast<SimplicialStripShared<width>*>(bytes);
  float* const dka = reinterpret_cast<float*>(bytes + sizeof(shared));  // [reach, width], and dva
  float* const dva = dka + strips.reach * width;
  const int of_all = rows.batch * rows.kv_heads, all = static_cast<int>(blockIdx.x % of_all);
  const int b = all / rows.kv_heads, kv_head = all % rows.kv_heads, part = static_cast<int>(blockIdx.y);
  const int local = strips.count - 1 - static_cast<int>(blockIdx.x / of_all), token = strips.first + local;
  const int share = (rows.head_tiles() + strips.parts - 1) / strips.parts;
  const int first = part * share, last = min(rows.head_tiles(), first + share);
  const KeyRange keys = rows.range_of(token);
  const int2 window = rows.shorts_of(token);
  const bool empty = keys.last < keys.first || window.y <= window.x;
  for (int i = threadIdx.x; i < 2 * strips.reach * width; i += kMmaThreads) dka[i] = 0;

  for (int index = first; index < last; ++index) {
    const RowTile at = rows.template tile<kMmaRows>(b, kv_head, token * rows.head_tiles() + index);
    const int heads = min(rows.tile_heads, rows.group - at.head), head = kv_head * rows.group + at.head;
    T* const to = dq + ((static_cast<int64_t>(b) * rows.queries + token) * rows.heads + head) * rows.width;
    if (empty) {
      for (int i = threadIdx.x; i < heads * rows.width; i += kMmaThreads) to[i] = narrow<T>(0.0f);
      continue;
    }
    __syncthreads();
    rows.fill(shared.table, at, true);
    __syncthreads();
    float products[width / 8][4], outputs[width / 8][4];
    mma_row_products<width>(rows, at, shared, shared.table.all_bounds(), products, outputs);

    float* const staged = shared.outputs();
    put_outputs<width>(products, staged);
    __syncthreads();
    for (int i = threadIdx.x; i < heads * rows.width; i += kMmaThreads) {
      const int h = i / rows.width, d = i % rows.width;
      float total = 0;
      for (int n = h * at.shorts; n < (h + 1) * at.shorts; ++n)
        total += rows.dq(shared.table, n, d, [&](int channel) { return staged[n * width + channel]; });
      to[i] = narrow<T>(total * rows.scale);
    }
    for (int i = threadIdx.x; i < at.shorts * rows.width; i += kMmaThreads) {
      const int r = i / rows.width, d = i % rows.width;
      float total = 0;
      for (int n = r; n < at.count; n += at.shorts)
        total += rows.dka(shared.table, n, d, [&](int channel) { return staged[n * width + channel]; });
      dka[r * width + d] += total;
    }
    __syncthreads();
    put_outputs<width>(outputs, staged);
    __syncthreads();
    for (int i = threadIdx.x; i < at.shorts * rows.value_width; i += kMmaThreads) {
      const int r = i / rows.value_width, e = i % rows.value_width;
      float total = 0;
      for (int n = r; n < at.count; n += at.shorts)
        total += staged[n * width + e] * widen<float>(rows.dout.data[shared.table.y[n] + e]);
      dva[r * width + e] += total;
    }
  }
  __syncthreads();
  const int64_t strip =
      ((static_cast<int64_t>(all) * strips.count + local) * strips.parts + part) * strips.reach;
  for (int i = threadIdx.x; i < strips.reach * rows.width; i += kMmaThreads)
    strips.dka[strip * rows.width + i] = dka[i / rows.width * width + i % rows.width];
  for (int i = threadIdx.x; i < strips.reach * rows.value_width; i += kMmaThreads)
    strips.dva[strip * rows.value_width + i] = dva[i / rows.value_width * width + i % rows.value_width];
}

// Adds the strips of a segment to those of the segments before, in the order of the queries. A thread for each channel of
// a short row. `sum` holds the sums between segments; the last segment's go to `out`.
template <class T>
__global__ __launch_bounds__(256) void add_strips_kernel(SimplicialRows<T> rows, Strips strips, const float* strip,
                                                         int width, float factor, bool first, bool last, float* sum,
                                                         T* out) {
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
  float total = first ? 0.0f : sum[i];
  for (int64_t t = begin; t < end; ++t) {
    const int row = r - rows.shorts_of(static_cast<int>(t)).x;
    const int64_t at = (static_cast<int64_t>(b) * rows.kv_heads + kv_head) * strips.count + (t - strips.first);
    for (int part = 0; part < strips.parts; ++part)
      total += strip[((at * strips.parts + part) * strips.reach + row) * width + channel];
  }
  if (last) out[i] = narrow<T>(total * factor);
  else sum[i] = total;
}

inline constexpr int64_t kStripBytes = int64_t{256} << 20;

// dq, and dk and dv of the short pair.
template <int width, class T>
void simplicial_rows_mma(Context& cuda, const SimplicialRows<T>& rows, const View& dq, const View& dka, const View& dva) {
  Strips strips = {};
  const int64_t heads = static_cast<int64_t>(rows.batch) * rows.kv_heads;
  strips.reach = rows.shorts;
  if (rows.causal && rows.window_a > 0) strips.reach = static_cast<int>(std::min<int64_t>(strips.reach, rows.window_a));
  strips.parts = parts_for(cuda, heads * rows.queries, rows.head_tiles(), 1);
  const int64_t of_query = heads * strips.parts * strips.reach * (rows.width + rows.value_width);
  const int64_t at_once =
      std::max<int64_t>(1, std::min<int64_t>(rows.queries, kStripBytes / static_cast<int64_t>(sizeof(float)) / of_query));
  strips.dka = cuda.scratch<float>(heads * at_once * strips.parts * strips.reach * rows.width);
  strips.dva = cuda.scratch<float>(heads * at_once * strips.parts * strips.reach * rows.value_width);
  const bool segments = at_once < rows.queries;
  float* const dka_sum = segments ? cuda.scratch<float>(dka.size()) : nullptr;
  float* const dva_sum = segments ? cuda.scratch<float>(dva.size()) : nullptr;
  for (int64_t first = 0; first < rows.queries; first += at_once) {
    strips.first = static_cast<int>(first);
    strips.count = static_cast<int>(std::min<int64_t>(at_once, rows.queries - first));
    launch(cuda, "simplicial_rows_mma_kernel", simplicial_rows_mma_kernel<width, T>,
           dim3(static_cast<unsigned>(heads * strips.count), static_cast<unsigned>(strips.parts)), kMmaThreads,
           sizeof(SimplicialStripShared<width>) + 2 * sizeof(float) * static_cast<size_t>(strips.reach) * width, rows,
           strips, dq.as<T>());
    const bool last = first + strips.count == rows.queries;
    const auto add = [&](const float* strip, int channels, float factor, float* sum, const View& out) {
      add_strips_kernel<<<static_cast<unsigned>((out.size() + 255) / 256), 256, 0, cuda.stream>>>(
          rows, strips, strip, channels, factor, first == 0, last, sum, out.as<T>());
      LLMEFF_LAUNCHED("add_strips_kernel");
    };
    add(strips.dka, rows.width, rows.scale, dka_sum, dka);
    add(strips.dva, rows.value_width, 1, dva_sum, dva);
  }
}

}  // namespace llmeff::cuda
