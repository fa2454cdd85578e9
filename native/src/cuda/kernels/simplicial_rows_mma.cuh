// The backward kernel on the tensor cores that owns the rows of a query (simplicial_strips.cuh).
#pragma once

#include "cuda/kernels/attention_launch.cuh"
#include "cuda/kernels/attention_mma.cuh"
#include "cuda/kernels/simplicial_strips.cuh"

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
__global__ __launch_bounds__(kMmaThreads) void simplicial_rows_mma_kernel(SimplicialRows<T> rows, Strips<float> strips,
                                                                          T* dq) {
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
  const int64_t strip = ((static_cast<int64_t>(all) * strips.count + local) * strips.parts + part) * strips.reach;
  for (int i = threadIdx.x; i < strips.reach * rows.width; i += kMmaThreads)
    strips.dka[strip * rows.width + i] = dka[i / rows.width * width + i % rows.width];
  for (int i = threadIdx.x; i < strips.reach * rows.value_width; i += kMmaThreads)
    strips.dva[strip * rows.value_width + i] = dva[i / rows.value_width * width + i % rows.value_width];
}

template <int width>
size_t strip_shared_bytes(int64_t reach) {
  return sizeof(SimplicialStripShared<width>) + 2 * sizeof(float) * static_cast<size_t>(reach) * width;
}

// dq, and dk and dv of the short pair.
template <int width, class T>
void simplicial_rows_mma(Context& cuda, const SimplicialRows<T>& rows, const View& dq, const View& dka,
                         const View& dva) {
  for_strips(cuda, rows, dka, dva, 1, [&](const Strips<float>& strips, int64_t heads) {
    launch(cuda, "simplicial_rows_mma_kernel", simplicial_rows_mma_kernel<width, T>,
           dim3(static_cast<unsigned>(heads * strips.count), static_cast<unsigned>(strips.parts)), kMmaThreads,
           strip_shared_bytes<width>(strips.reach), rows, strips, dq.as<T>());
  });
}

}  // namespace llmeff::cuda
