// Attention of bfloat16 and float16 on the tensor cores through mma.sync, for every mask and every GPU from sm_80 on:
// online softmax over tiles of keys (Dao, FlashAttention-2, arXiv:2307.08691). Both the rows of attention_rows.cuh and
// those of simplicial_rows.cuh go through it.
//
// A block of four warps works on 64 rows (or, for the gradients of keys, on 64 keys), 16 of them to each warp, so that
// a row's softmax is among four lanes; forward, where there are enough rows, on 128, so that what a warp reads of the
// keys serves two fragments of 16. `width` is that of a tile in shared memory, the larger of D and Dv padded with zeros
// to 64, 128 or 256. Scores and outputs stay in registers; P and dS are rounded to the dtype as they become operands.
//
//   forward              A 64 rows, K and V tiles of `keys` rows: while the scores of a tile are made its V arrives,
//   and
//                        the next K while P·V is
//   gradient of rows     A and Y 64 rows, K and V: S, dP, G = dS·K
//   gradient of keys     K and V 64 rows, A and Y tiles: Sᵀ, dPᵀ, dV = Pᵀ·Y, dK = dSᵀ·A
//
// A bias of the keys or the values adds the same number to a whole row of scores or products, so it is added to the
// row's statistics.
#pragma once

#include "cuda/kernels/attention_rows.cuh"
#include "cuda/kernels/mma_tile.cuh"

namespace llmeff::cuda {

inline constexpr int kMmaThreads = 128;
inline constexpr int kMmaRows = 64;

// Keys of a tile, and rows of one in the gradient of keys: what the registers hold beside the outputs.
template <int width>
inline constexpr int kMmaKeys = width > 128 ? 32 : 64;
template <int width>
inline constexpr int kMmaGradRows = width > 128 ? 32 : 64;
// Channels of the outputs of a block in the gradient of keys.
template <int width>
inline constexpr int kMmaGradColumns = width > 128 ? 128 : width;

template <int width, int fragments>
struct MmaForwardShared {
  static constexpr int kRows = fragments * kMmaRows;
  __align__(128) unsigned char a[kRows * width * 2];
  __align__(128) unsigned char k[kMmaKeys<width> * width * 2];
  __align__(128) unsigned char v[kMmaKeys<width> * width * 2];
  RowTable<float, kRows> table;
  // Of the rows in float32, when all products are done: over a, k and v.
  __device__ float* outputs() {
    static_assert(sizeof(a) + sizeof(k) + sizeof(v) >= kRows * width * sizeof(float));
    return reinterpret_cast<float*>(a);
  }
};
template <int width>
struct MmaRowGradientShared {
  __align__(128) unsigned char a[kMmaRows * width * 2];
  __align__(128) unsigned char y[kMmaRows * width * 2];
  __align__(128) unsigned char k[kMmaKeys<width> * width * 2];
  __align__(128) unsigned char v[kMmaKeys<width> * width * 2];
  RowTable<float, kMmaRows> table;
  __device__ float* outputs() { return reinterpret_cast<float*>(a); }
};
template <int width>
struct MmaKeyGradientShared {
  __align__(128) unsigned char k[kMmaRows * width * 2];
  __align__(128) unsigned char v[kMmaRows * width * 2];
  __align__(128) unsigned char a[kMmaGradRows<width> * width * 2];
  __align__(128) unsigned char y[kMmaGradRows<width> * width * 2];
  RowTable<float, kMmaGradRows<width>> table;
};

// Products of two pieces, x∘(y + bias). A product of two 16-bit numbers is exact in float32, so that without a bias the
// multiplication of pairs rounds the same.
template <class T>
__device__ __forceinline__ uint32_t multiply_two(uint32_t x, uint32_t y) {
  if constexpr (__is_same(T, bf16)) {
    const __nv_bfloat162 two =
        __hmul2(reinterpret_cast<const __nv_bfloat162&>(x), reinterpret_cast<const __nv_bfloat162&>(y));
    return reinterpret_cast<const uint32_t&>(two);
  } else {
    const __half2 two = __hmul2(reinterpret_cast<const __half2&>(x), reinterpret_cast<const __half2&>(y));
    return reinterpret_cast<const uint32_t&>(two);
  }
}
template <class T>
__device__ __forceinline__ uint4 multiply_pieces(uint4 x, uint4 y, float bias) {
  if (bias == 0)
    return {multiply_two<T>(x.x, y.x), multiply_two<T>(x.y, y.y), multiply_two<T>(x.z, y.z), multiply_two<T>(x.w, y.w)};
  const auto two = [&](uint32_t a, uint32_t b) {
    const float2 left = unpack<T>(a), right = unpack<T>(b);
    return pack<T>(left.x * (right.x + bias), left.y * (right.y + bias));
  };
  return {two(x.x, y.x), two(x.y, y.y), two(x.z, y.z), two(x.w, y.w)};
}

// Two chunks of 3 channels of x × (y + bias): 6 numbers in 3 registers.
template <class T>
__device__ __forceinline__ void cross_two(const uint32_t (&x)[3], const uint32_t (&y)[3], float x_bias, float y_bias,
                                          uint32_t (&out)[3]) {
  const float2 x0 = unpack<T>(x[0]), x1 = unpack<T>(x[1]), x2 = unpack<T>(x[2]);
  const float2 y0 = unpack<T>(y[0]), y1 = unpack<T>(y[1]), y2 = unpack<T>(y[2]);
  const float a[6] = {x0.x + x_bias, x0.y + x_bias, x1.x + x_bias, x1.y + x_bias, x2.x + x_bias, x2.y + x_bias};
  const float b[6] = {y0.x + y_bias, y0.y + y_bias, y1.x + y_bias, y1.y + y_bias, y2.x + y_bias, y2.y + y_bias};
  const auto cross = [&](int next, int after) { return a[next] * b[after] - a[after] * b[next]; };
  out[0] = pack<T>(cross(1, 2), cross(2, 0));
  out[1] = pack<T>(cross(0, 1), cross(4, 5));
  out[2] = pack<T>(cross(5, 3), cross(3, 4));
}

// The determinant form's A: two chunks at a time, the other channels one by one.
template <int width, int rows, int threads, class Rows, class Table>
__device__ __forceinline__ void put_crossed_rows(const Rows& x, const Table& table, int count, unsigned char* tile) {
  using T = typename Rows::T;
  using Tile = MmaTile<width>;
  const int pairs = x.chunks / 2, done = 6 * pairs;
  for (int i = threadIdx.x; i < rows * pairs; i += threads) {
    const int n = i / pairs, channel = i % pairs * 6;
    uint32_t product[3] = {0, 0, 0};
    if (n < count) {
      const auto load = [&](const T* from, uint32_t (&to)[3]) {
#pragma unroll
        for (int e = 0; e < 3; ++e) to[e] = reinterpret_cast<const uint32_t*>(from)[e];
      };
      uint32_t query[3], key[3];
      load(x.q.data + table.a[n] + channel, query);
      load(x.ka.data + table.short_key[n] + channel, key);
      if (x.a_is_second)
        cross_two<T>(key, query, x.ka_bias, 0, product);
      else
        cross_two<T>(query, key, 0, x.ka_bias, product);
    }
#pragma unroll
    for (int e = 0; e < 3; ++e) *reinterpret_cast<uint32_t*>(tile + Tile::place_of(n, channel + 2 * e)) = product[e];
  }
  for (int i = threadIdx.x; i < rows * (width - done); i += threads) {
    const int n = i / (width - done), d = done + i % (width - done);
    *reinterpret_cast<T*>(tile + Tile::place_of(n, d)) = narrow<T>(n < count && d < x.width ? x.a(table, n, d) : 0.0f);
  }
}

// A (or Y, with `value`) of a tile's rows.
template <int width, int rows, int threads, class Rows, class Table>
__device__ __forceinline__ void put_rows(const Rows& x, const Table& table, int count, bool value,
                                         unsigned char* tile) {
  using T = typename Rows::T;
  using Tile = MmaTile<width>;
  const int channels = value ? x.value_width : x.width;
  const Heads<const T>& heads = value ? x.dout : x.q;
  const int64_t* const offset = value ? table.y : table.a;
  if constexpr (!Rows::kSimplicial) {
    copy_rows<T, width, rows, threads>(tile, x.aligned, channels, heads.data,
                                       [&](int n) { return n < count ? heads.data + offset[n] : nullptr; });
  } else if (x.aligned && (value || x.chunks == 0)) {
    const Heads<const T>& shorts = value ? x.va : x.ka;
    const int64_t* const short_offset = value ? table.short_value : table.short_key;
    const float bias = value ? x.va_bias : x.ka_bias;
#pragma unroll 4
    for (int i = threadIdx.x; i < rows * Tile::kPieces; i += threads) {
      const int n = i / Tile::kPieces, piece = i % Tile::kPieces;
      uint4 product = {0, 0, 0, 0};
      if (n < count && piece * 8 < channels)
        product = multiply_pieces<T>(*reinterpret_cast<const uint4*>(heads.data + offset[n] + piece * 8),
                                     *reinterpret_cast<const uint4*>(shorts.data + short_offset[n] + piece * 8), bias);
      *reinterpret_cast<uint4*>(tile + Tile::place(n, piece)) = product;
    }
  } else if (x.aligned) {
    put_crossed_rows<width, rows, threads>(x, table, count, tile);
  } else {
    for (int i = threadIdx.x; i < rows * width; i += threads) {
      const int n = i / width, d = i % width;
      const float product = n < count && d < channels ? (value ? x.y(table, n, d) : x.a(table, n, d)) : 0.0f;
      *reinterpret_cast<T*>(tile + Tile::place_of(n, d)) = narrow<T>(product);
    }
  }
}

// Σ over the channels of row n of a tile.
template <class T, int width>
__device__ __forceinline__ float sum_of_row(const unsigned char* tile, int n) {
  float sum = 0;
  for (int piece = 0; piece < width / 8; ++piece) {
    const uint4 x = *reinterpret_cast<const uint4*>(tile + MmaTile<width>::place(n, piece));
    for (const uint32_t two : {x.x, x.y, x.z, x.w}) {
      const float2 pair = unpack<T>(two);
      sum += pair.x + pair.y;
    }
  }
  return sum;
}

// The keys [j0, j0 + rows) of a head, zeros from `end` on; and their values.
template <int width, int rows, class Rows>
__device__ __forceinline__ void put_keys(const Rows& x, int b, int kv_head, int j0, int end, unsigned char* tile) {
  copy_rows<typename Rows::T, width, rows, kMmaThreads>(
      tile, x.aligned, x.width, x.k.data, [&](int n) { return j0 + n < end ? x.k.at(b, j0 + n, kv_head) : nullptr; });
}
template <int width, int rows, class Rows>
__device__ __forceinline__ void put_values(const Rows& x, int b, int kv_head, int j0, int end, unsigned char* tile) {
  copy_rows<typename Rows::T, width, rows, kMmaThreads>(tile, x.aligned, x.value_width, x.v.data, [&](int n) {
    return j0 + n < end ? x.v.at(b, j0 + n, kv_head) : nullptr;
  });
}

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// As Logits of attention_plain.cuh; tanh by 2^x has the absolute error of one rounding, which is what a capped score
// needs.
struct MmaLogits {
  float factor, cap;

  template <class Rows>
  __device__ explicit MmaLogits(const Rows& rows)
      : factor(rows.softcap > 0 ? rows.scale / rows.softcap : rows.scale * static_cast<float>(kLog2E)),
        cap(rows.softcap * static_cast<float>(kLog2E)) {}
  static __device__ __forceinline__ float turned(float x) {
    x *= static_cast<float>(2 * kLog2E);
    return 1.0f - __fdividef(2.0f, exp2_fast(x > 126.0f ? 126.0f : x) + 1.0f);
  }
  __device__ __forceinline__ float operator()(float score) const {
    return cap > 0 ? cap * turned(score * factor) : score * factor;
  }
};

// The softmax of a warp's rows: acc fragments, and of rows g and g + 8 of each the maximum (of base 2 logits) and the
// sum, which is of this lane's columns alone until the end.
template <int width, int fragments>
struct MmaState {
  float acc[fragments][width / 8][4];
  float maximum[fragments][2], sum[fragments][2];
};

// The scores of a tile of keys become base 2 logits, −∞ where a row doesn't see a key; returns which it sees (bit 4·n +
// e).
template <class Rows, int tiles>
__device__ __forceinline__ uint32_t mask_scores(const Rows& rows, int b, const KeyRange (&range)[2], int j0, int end,
                                                float (&s)[tiles][4]) {
  const int t = threadIdx.x % 4;
  uint32_t seen = 0;
#pragma unroll
  for (int n = 0; n < tiles; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int j = j0 + 8 * n + 2 * t + e % 2;
      const bool sees = j < end && rows.sees(b, range[e / 2], j);
      seen |= static_cast<uint32_t>(sees) << (4 * n + e);
      s[n][e] = sees ? s[n][e] : -INFINITY;
    }
  return seen;
}

// Scaled scores s[16, 8·tiles] become weights, acc and the statistics follow; rows [0] and [1] are g and g + 8.
template <int tiles, int columns>
__device__ __forceinline__ void online_softmax(float (&s)[tiles][4], float (&acc)[columns][4], float (&maximum)[2],
                                               float (&sum)[2]) {
  float shift[2], shrink[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = maximum[half];
#pragma unroll
    for (int n = 0; n < tiles; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    top = quad_max(top);
    shift[half] = top == -INFINITY ? 0.0f : top;
    shrink[half] = exp2_fast(maximum[half] - shift[half]);
    maximum[half] = top;
    sum[half] *= shrink[half];
  }
#pragma unroll
  for (int n = 0; n < tiles; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      s[n][e] = exp2_fast(s[n][e] - shift[e / 2]);
      sum[e / 2] += s[n][e];
    }
#pragma unroll
  for (int n = 0; n < columns; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) acc[n][e] *= shrink[e / 2];
}

// Rows of a tile over the keys [begin, end). The table is filled, and the block has passed a barrier since.
template <int width, int fragments, class Rows>
__device__ __forceinline__ void mma_forward(const Rows& rows, const RowTile& at,
                                            MmaForwardShared<width, fragments>& shared, const KeyBounds& bounds,
                                            int begin, int end, MmaState<width, fragments>& state) {
  using T = typename Rows::T;
  constexpr int kKeys = kMmaKeys<width>, kTiles = kKeys / 8, kRows = fragments * kMmaRows;
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 * fragments, g = lane / 4;
  const MmaLogits logits(rows);
#pragma unroll
  for (int m = 0; m < fragments; ++m) {
#pragma unroll
    for (int n = 0; n < width / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) state.acc[m][n][e] = 0;
    state.maximum[m][0] = state.maximum[m][1] = -INFINITY, state.sum[m][0] = state.sum[m][1] = 0;
  }
  put_rows<width, kRows, kMmaThreads>(rows, shared.table, at.count, false, shared.a);
  if (begin < end) put_keys<width, kKeys>(rows, at.b, at.kv_head, begin, end, shared.k);
  for (int j0 = begin; j0 < end; j0 += kKeys) {
    copies_done();
    __syncthreads();
    put_values<width, kKeys>(rows, at.b, at.kv_head, j0, end, shared.v);
    float s[fragments][kTiles][4] = {};
    add_scores<T, width, kTiles, fragments>(s, shared_address(shared.a), row, shared_address(shared.k));
    const bool masked = !bounds.whole(j0, kKeys) || j0 + kKeys > end;
    uint32_t seen[fragments];
#pragma unroll
    for (int m = 0; m < fragments; ++m) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[m][n][e] = logits(s[m][n][e]);
      seen[m] = ~0u;
      if (masked) {
        const KeyRange range[2] = {shared.table.range[row + 16 * m + g], shared.table.range[row + 16 * m + g + 8]};
        seen[m] = mask_scores(rows, at.b, range, j0, end, s[m]);
      }
      online_softmax(s[m], state.acc[m], state.maximum[m], state.sum[m]);
    }
    copies_done();
    __syncthreads();
    if (j0 + kKeys < end) put_keys<width, kKeys>(rows, at.b, at.kv_head, j0 + kKeys, end, shared.k);
    if (masked && any_not_finite<T, kMmaThreads>(shared.v, sizeof(shared.v))) {
#pragma unroll
      for (int m = 0; m < fragments; ++m) add_weighted_seen<T, width>(state.acc[m], s[m], seen[m], shared.v);
    } else {
      add_weighted<T, width>(state.acc, s, shared_address(shared.v));
    }
  }
  copies_done();  // A of rows without keys too
#pragma unroll
  for (int m = 0; m < fragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) state.sum[m][half] = quad_sum(state.sum[m][half]);
  if constexpr (Rows::kSimplicial) {
    if (rows.k_bias != 0 && begin >= end) __syncthreads();  // the barrier of the loop, which A waits for
#pragma unroll
    for (int m = 0; m < fragments; ++m) {
      if (rows.k_bias != 0)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          state.maximum[m][half] +=
              logits.factor * rows.k_bias * sum_of_row<T, width>(shared.a, row + 16 * m + g + 8 * half);
      if (rows.v_bias != 0)
#pragma unroll
        for (int n = 0; n < width / 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) state.acc[m][n][e] += rows.v_bias * state.sum[m][e / 2];
    }
  }
}

// With the biases of keys and values in the statistics of the rows, which threads n < rows change. Between barriers.
template <int width, class Rows, class Table>
__device__ __forceinline__ void add_biases(const Rows& rows, Table& table, const unsigned char* a,
                                           const unsigned char* y) {
  if constexpr (Rows::kSimplicial) {
    const int n = threadIdx.x;
    if (n >= Table::kRows) return;
    using T = typename Rows::T;
    const MmaLogits logits(rows);
    if (rows.k_bias != 0) table.lse[n] -= logits.factor * rows.k_bias * sum_of_row<T, width>(a, n);
    if (rows.v_bias != 0) table.delta[n] -= rows.v_bias * sum_of_row<T, width>(y, n);
  }
}

// P and dS of one score and product.
__device__ __forceinline__ float2 slope_of(const MmaLogits& logits, float score, float product, float lse,
                                           float delta) {
  float slope = product - delta, logit = score * logits.factor;
  if (logits.cap > 0) {
    const float turned = MmaLogits::turned(logit);
    slope *= 1.0f - turned * turned;
    logit = logits.cap * turned;
  }
  const float p = exp2_fast(logit - lse);
  return {p, p * slope};
}

// G = dS·K of a tile; the table is filled, and the block has passed a barrier since.
template <int width, class Rows>
__device__ __forceinline__ void mma_row_gradient(const Rows& rows, const RowTile& at,
                                                 MmaRowGradientShared<width>& shared, const KeyBounds& bounds,
                                                 float (&acc)[width / 8][4]) {
  using T = typename Rows::T;
  constexpr int kKeys = kMmaKeys<width>, kTiles = kKeys / 8;
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16, g = lane / 4, t = lane % 4;
  const MmaLogits logits(rows);
#pragma unroll
  for (int n = 0; n < width / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) acc[n][e] = 0;
  put_rows<width, kMmaRows, kMmaThreads>(rows, shared.table, at.count, false, shared.a);
  put_rows<width, kMmaRows, kMmaThreads>(rows, shared.table, at.count, true, shared.y);
  if (bounds.begin < bounds.end) {
    put_keys<width, kKeys>(rows, at.b, at.kv_head, bounds.begin, bounds.end, shared.k);
    put_values<width, kKeys>(rows, at.b, at.kv_head, bounds.begin, bounds.end, shared.v);
  }
  copies_done();
  __syncthreads();
  add_biases<width>(rows, shared.table, shared.a, shared.y);
  __syncthreads();
  const KeyRange range[2] = {shared.table.range[row + g], shared.table.range[row + g + 8]};
  const float lse[2] = {shared.table.lse[row + g], shared.table.lse[row + g + 8]};
  const float delta[2] = {shared.table.delta[row + g], shared.table.delta[row + g + 8]};
  float total[2] = {0, 0};  // of this lane's dS, for the bias of keys
  for (int j0 = bounds.begin; j0 < bounds.end; j0 += kKeys) {
    copies_done();
    __syncthreads();
    float s[kTiles][4] = {}, ds[kTiles][4] = {};
    add_scores<T, width, kTiles>(s, shared_address(shared.a), row, shared_address(shared.k));
    add_scores<T, width, kTiles>(ds, shared_address(shared.y), row, shared_address(shared.v));
    __syncthreads();
    if (j0 + kKeys < bounds.end) put_values<width, kKeys>(rows, at.b, at.kv_head, j0 + kKeys, bounds.end, shared.v);
    const bool masked = !bounds.whole(j0, kKeys);
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) ds[n][e] = slope_of(logits, s[n][e], ds[n][e], lse[e / 2], delta[e / 2]).y;
    uint32_t seen = ~0u;
    if (masked) {
      seen = 0;
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const bool sees = rows.sees(at.b, range[e / 2], j0 + 8 * n + 2 * t + e % 2);
          seen |= static_cast<uint32_t>(sees) << (4 * n + e);
          ds[n][e] = sees ? ds[n][e] : 0.0f;
        }
    }
    if constexpr (Rows::kSimplicial) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) total[e / 2] += ds[n][e];
    }
    if (masked && any_not_finite<T, kMmaThreads>(shared.k, sizeof(shared.k)))
      add_weighted_seen<T, width>(acc, ds, seen, shared.k);
    else
      add_weighted<T, width>(acc, ds, shared_address(shared.k));
    __syncthreads();
    if (j0 + kKeys < bounds.end) put_keys<width, kKeys>(rows, at.b, at.kv_head, j0 + kKeys, bounds.end, shared.k);
  }
  if constexpr (Rows::kSimplicial) {
    if (rows.k_bias != 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) total[half] = rows.k_bias * quad_sum(total[half]);
#pragma unroll
      for (int n = 0; n < width / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) acc[n][e] += total[e / 2];
    }
  }
}

// dK and dV of the keys [j0, j0 + 64), channels from 8·first, from the tiles [begin, end) of rows; without the scale.
template <int width, int columns, class Rows>
__device__ __forceinline__ void mma_key_gradient(const Rows& rows, int b, int kv_head, int j0, int begin, int end,
                                                 MmaKeyGradientShared<width>& shared, int first,
                                                 float (&dk)[columns / 8][4], float (&dv)[columns / 8][4]) {
  using T = typename Rows::T;
  constexpr int kRows = kMmaGradRows<width>, kTiles = kRows / 8;
  const int lane = threadIdx.x % 32, key = threadIdx.x / 32 * 16, g = lane / 4, t = lane % 4;
  const MmaLogits logits(rows);
#pragma unroll
  for (int n = 0; n < columns / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) dk[n][e] = dv[n][e] = 0;
  put_keys<width, kMmaRows>(rows, b, kv_head, j0, rows.keys, shared.k);
  put_values<width, kMmaRows>(rows, b, kv_head, j0, rows.keys, shared.v);
  for (int index = begin; index < end; ++index) {
    const RowTile at = rows.template tile<kRows>(b, kv_head, index);
    __syncthreads();
    rows.fill(shared.table, at, true);
    __syncthreads();
    const KeyBounds bounds = shared.table.all_bounds();
    if (at.count == 0 || !bounds.sees(j0, kMmaRows)) continue;
    put_rows<width, kRows, kMmaThreads>(rows, shared.table, at.count, false, shared.a);
    put_rows<width, kRows, kMmaThreads>(rows, shared.table, at.count, true, shared.y);
    copies_done();
    __syncthreads();
    if constexpr (Rows::kSimplicial)
      if (rows.k_bias != 0 || rows.v_bias != 0) {
        add_biases<width>(rows, shared.table, shared.a, shared.y);
        __syncthreads();
      }
    float p[kTiles][4] = {}, ds[kTiles][4] = {};
    add_scores<T, width, kTiles>(p, shared_address(shared.k), key, shared_address(shared.a));
    add_scores<T, width, kTiles>(ds, shared_address(shared.v), key, shared_address(shared.y));
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float2 lse = *reinterpret_cast<const float2*>(&shared.table.lse[8 * n + 2 * t]);
      const float2 delta = *reinterpret_cast<const float2*>(&shared.table.delta[8 * n + 2 * t]);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float2 both = slope_of(logits, p[n][e], ds[n][e], e % 2 ? lse.y : lse.x, e % 2 ? delta.y : delta.x);
        p[n][e] = both.x, ds[n][e] = both.y;
      }
    }
    const bool masked = !bounds.whole(j0, kMmaRows);
    uint32_t seen = ~0u;
    bool exact = false;
    if (masked) {
      seen = 0;
#pragma unroll
      for (int n = 0; n < kTiles; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const bool sees = rows.sees(b, shared.table.range[8 * n + 2 * t + e % 2], j0 + key + g + e / 2 * 8);
          seen |= static_cast<uint32_t>(sees) << (4 * n + e);
          p[n][e] = sees ? p[n][e] : 0.0f, ds[n][e] = sees ? ds[n][e] : 0.0f;
        }
      const bool bad_a = any_not_finite<T, kMmaThreads>(shared.a, sizeof(shared.a));
      exact = any_not_finite<T, kMmaThreads>(shared.y, sizeof(shared.y)) || bad_a;
    }
    if (exact) {
      add_weighted_seen<T, width>(dv, p, seen, shared.y, first);
      add_weighted_seen<T, width>(dk, ds, seen, shared.a, first);
    } else {
      add_weighted<T, width>(dv, p, shared_address(shared.y), first);
      add_weighted<T, width>(dk, ds, shared_address(shared.a), first);
    }
  }
}

}  // namespace llmeff::cuda
