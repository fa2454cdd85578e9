// Attention on the CUDA cores, for every dtype and width: float32 and float64, and what the tensor cores' kernels don't
// take. Tiles of 64 rows and 64 keys; both operands of a product lie in shared memory, a chunk of channels at a time,
// with the side that a thread takes four of contiguous. A block of 256 threads is 16 × 16: thread (ty, tx) has rows
// 4·ty … 4·ty + 3 of a tile and the columns 4·tx … 4·tx + 3, so that 16 threads share a row.
//
// Outputs wider than kColumns channels are made by several blocks, each of which computes the scores anew.
#pragma once

#include "cuda/kernels/attention_rows.cuh"

namespace llmeff::cuda {

template <class W>
struct PlainTile {
  static constexpr int kRows = 64, kKeys = 64, kThreads = 256;
  static constexpr int kChunk = 128 / static_cast<int>(sizeof(W));    // channels of a product at a time
  static constexpr int kColumns = 512 / static_cast<int>(sizeof(W));  // channels of an output
  static constexpr int kQuads = kColumns / 64;                        // of a thread's columns
  static constexpr int kStep = 68;                                    // of 64 numbers, so that stores spread over banks

  W left[kChunk][kStep], right[kChunk][kStep];  // operands of the scores
  W p[64][kStep];                               // P or dS, the index that is summed over first
  W values[64][kColumns];                       // the other operand of the second product
};

template <class W>
struct alignas(16) Quad {
  W at[4];
};
template <class W>
__device__ __forceinline__ Quad<W> quad(const W* from) {
  return *reinterpret_cast<const Quad<W>*>(from);
}

// s[i][j] = Σ_d x(4·ty + i, d)·z(4·tx + j, d).
template <class W, class X, class Z>
__device__ __forceinline__ void dot_tile(PlainTile<W>& tile, int width, X&& x, Z&& z, W (&s)[4][4]) {
  using Tile = PlainTile<W>;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) s[i][j] = 0;
  for (int d0 = 0; d0 < width; d0 += Tile::kChunk) {
    // A thread has one channel of every kStride-th row; all of its loads are under way before the first store.
    constexpr int kStride = Tile::kThreads / Tile::kChunk, kLoads = 64 / kStride;
    const int d = threadIdx.x % Tile::kChunk, n = threadIdx.x / Tile::kChunk;
    W left[kLoads], right[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      left[i] = d0 + d < width ? x(n + i * kStride, d0 + d) : W{0};
      right[i] = d0 + d < width ? z(n + i * kStride, d0 + d) : W{0};
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kLoads; ++i) tile.left[d][n + i * kStride] = left[i], tile.right[d][n + i * kStride] = right[i];
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < Tile::kChunk; ++c) {
      const Quad<W> a = quad(&tile.left[c][4 * ty]), b = quad(&tile.right[c][4 * tx]);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) s[i][j] = fma(a.at[i], b.at[j], s[i][j]);
    }
  }
}

// tile.p[4·tx + j][4·ty + i] = s[i][j]: what is summed over comes first.
template <class W>
__device__ __forceinline__ void put_transposed(PlainTile<W>& tile, const W (&s)[4][4]) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    Quad<W> column;
#pragma unroll
    for (int i = 0; i < 4; ++i) column.at[i] = s[i][j];
    *reinterpret_cast<Quad<W>*>(&tile.p[4 * tx + j][4 * ty]) = column;
  }
}

// tile.values[n][c] = x(n, c0 + c), 0 past the width.
template <class W, class X>
__device__ __forceinline__ void put_values(PlainTile<W>& tile, int c0, int width, X&& x) {
  constexpr int kColumns = PlainTile<W>::kColumns, kStride = PlainTile<W>::kThreads / kColumns;
  const int c = threadIdx.x % kColumns, n = threadIdx.x / kColumns;
#pragma unroll 8
  for (int i = 0; i < 64; i += kStride) tile.values[n + i][c] = c0 + c < width ? x(n + i, c0 + c) : W{0};
}

// acc[i][·] += Σ_n p[n][4·ty + i]·values[n][·] over those n that seen(i, n): a weight of 0 would not hide what isn't
// finite. Quad c of a thread's columns begins at 64·c + 4·tx.
template <bool masked, class W, class Seen>
__device__ __forceinline__ void add_product(const PlainTile<W>& tile, W (&acc)[4][PlainTile<W>::kQuads * 4],
                                            Seen&& seen) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll 4
  for (int n = 0; n < 64; ++n) {
    const Quad<W> p = quad(&tile.p[n][4 * ty]);
    Quad<W> value[PlainTile<W>::kQuads];
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads; ++c) value[c] = quad(&tile.values[n][64 * c + 4 * tx]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (masked && !seen(i, n)) continue;
#pragma unroll
      for (int c = 0; c < PlainTile<W>::kQuads; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) acc[i][4 * c + e] = fma(p.at[i], value[c].at[e], acc[i][4 * c + e]);
    }
  }
}
template <class W, class Seen>
__device__ __forceinline__ void add_product(const PlainTile<W>& tile, bool masked,
                                            W (&acc)[4][PlainTile<W>::kQuads * 4], Seen&& seen) {
  if (masked)
    add_product<true>(tile, acc, seen);
  else
    add_product<false>(tile, acc, seen);
}

template <class W>
__device__ __forceinline__ W row_max(W x) {
#pragma unroll
  for (int step = 8; step > 0; step /= 2) x = max(x, __shfl_xor_sync(~0u, x, step));
  return x;
}
template <class W>
__device__ __forceinline__ W row_sum(W x) {
#pragma unroll
  for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// Logits to base 2 of scaled scores, and the slope of the softcap.
template <class W>
struct Logits {
  W factor, cap;  // cap 0: none

  template <class Rows>
  __device__ explicit Logits(const Rows& rows)
      : factor(rows.softcap > 0 ? rows.scale / rows.softcap : rows.scale * static_cast<W>(kLog2E)),
        cap(rows.softcap * static_cast<W>(kLog2E)) {}
  __device__ __forceinline__ W operator()(W score) const {
    score *= factor;
    return cap > 0 ? cap * tanh(score) : score;
  }
  __device__ __forceinline__ W operator()(W score, W& slope) const {
    score *= factor;
    if (!(cap > 0)) return score;
    const W turned = tanh(score);
    slope *= 1 - turned * turned;
    return cap * turned;
  }
};

// One softmax over rows of the keys; the maximum and the output are of base 2 logits.
template <class W>
struct PlainState {
  W acc[4][PlainTile<W>::kQuads * 4];
  W maximum[4], sum[4];  // the sum of this thread's columns alone, until the end
};

// Rows of a tile over the keys [begin, end), columns from c0 of the values.
template <class Rows, class Table, class W = typename Rows::W>
__device__ __forceinline__ void plain_forward(const Rows& rows, const RowTile& at, const Table& table,
                                              PlainTile<W>& tile, const KeyBounds& bounds, int begin, int end, int c0,
                                              PlainState<W>& state) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const Logits<W> logits(rows);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    state.maximum[i] = -INFINITY, state.sum[i] = 0;
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) state.acc[i][c] = 0;
  }
  for (int j0 = begin; j0 < end; j0 += 64) {
    const bool masked = !bounds.whole(j0, 64) || j0 + 64 > end;
    const auto sees = [&](int i, int j) { return j0 + j < end && rows.sees(at.b, table.range[4 * ty + i], j0 + j); };
    W s[4][4];
    dot_tile(
        tile, rows.width, [&](int n, int d) { return n < at.count ? rows.a(table, n, d) : W{0}; },
        [&](int n, int d) {
          return j0 + n < end ? widen<W>(rows.k.at(at.b, j0 + n, at.kv_head)[d]) + rows.k_bias : W{0};
        },
        s);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      W top = state.maximum[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] = masked && !sees(i, 4 * tx + j) ? -INFINITY : logits(s[i][j]);
        top = max(top, s[i][j]);
      }
      top = row_max(top);
      const W shift = top == -INFINITY ? W{0} : top;
      const W shrink = exp2(state.maximum[i] - shift);
      state.maximum[i] = top;
      state.sum[i] *= shrink;
#pragma unroll
      for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) state.acc[i][c] *= shrink;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] = exp2(s[i][j] - shift);
        state.sum[i] += s[i][j];
      }
    }
    put_transposed(tile, s);
    put_values(tile, c0, rows.value_width, [&](int n, int e) {
      return j0 + n < end ? widen<W>(rows.v.at(at.b, j0 + n, at.kv_head)[e]) + rows.v_bias : W{0};
    });
    __syncthreads();
    add_product(tile, masked, state.acc, sees);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) state.sum[i] = row_sum(state.sum[i]);
}

// G = dS·K of a tile: acc, channels from c0.
template <class Rows, class Table, class W = typename Rows::W>
__device__ __forceinline__ void plain_row_gradient(const Rows& rows, const RowTile& at, const Table& table,
                                                   PlainTile<W>& tile, const KeyBounds& bounds, int c0,
                                                   W (&acc)[4][PlainTile<W>::kQuads * 4]) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const Logits<W> logits(rows);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) acc[i][c] = 0;
  for (int j0 = bounds.begin; j0 < bounds.end; j0 += 64) {
    const bool masked = !bounds.whole(j0, 64);
    const auto sees = [&](int i, int j) { return rows.sees(at.b, table.range[4 * ty + i], j0 + j); };
    const auto key = [&](int n, int d) {
      return j0 + n < bounds.end ? widen<W>(rows.k.at(at.b, j0 + n, at.kv_head)[d]) + rows.k_bias : W{0};
    };
    W s[4][4], ds[4][4];
    dot_tile(tile, rows.width, [&](int n, int d) { return n < at.count ? rows.a(table, n, d) : W{0}; }, key, s);
    dot_tile(
        tile, rows.value_width, [&](int n, int e) { return n < at.count ? rows.y(table, n, e) : W{0}; },
        [&](int n, int e) {
          return j0 + n < bounds.end ? widen<W>(rows.v.at(at.b, j0 + n, at.kv_head)[e]) + rows.v_bias : W{0};
        },
        ds);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        W slope = ds[i][j] - table.delta[4 * ty + i];
        const W logit = logits(s[i][j], slope);
        slope *= exp2(logit - table.lse[4 * ty + i]);
        ds[i][j] = masked && !sees(i, 4 * tx + j) ? W{0} : slope;
      }
    put_transposed(tile, ds);
    put_values(tile, c0, rows.width, key);
    __syncthreads();
    add_product(tile, masked, acc, sees);
  }
}

// G = dS·K and PV = P·V of a tile whose rows all see the same keys; channels from c0.
template <class Rows, class Table, class W = typename Rows::W>
__device__ __forceinline__ void plain_row_products(const Rows& rows, const RowTile& at, const Table& table,
                                                   PlainTile<W>& tile, const KeyBounds& bounds, int c0,
                                                   W (&products)[4][PlainTile<W>::kQuads * 4],
                                                   W (&outputs)[4][PlainTile<W>::kQuads * 4]) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const Logits<W> logits(rows);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) products[i][c] = outputs[i][c] = 0;
  for (int j0 = bounds.begin; j0 < bounds.end; j0 += 64) {
    const int present = bounds.end - j0;
    const auto key = [&](int n, int d) {
      return n < present ? widen<W>(rows.k.at(at.b, j0 + n, at.kv_head)[d]) + rows.k_bias : W{0};
    };
    const auto value = [&](int n, int e) {
      return n < present ? widen<W>(rows.v.at(at.b, j0 + n, at.kv_head)[e]) + rows.v_bias : W{0};
    };
    W p[4][4], ds[4][4];
    dot_tile(tile, rows.width, [&](int n, int d) { return n < at.count ? rows.a(table, n, d) : W{0}; }, key, p);
    dot_tile(
        tile, rows.value_width, [&](int n, int e) { return n < at.count ? rows.y(table, n, e) : W{0}; }, value, ds);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const W weight = exp2(logits(p[i][j]) - table.lse[4 * ty + i]);
        const bool seen = 4 * tx + j < present;
        ds[i][j] = seen ? weight * (ds[i][j] - table.delta[4 * ty + i]) : W{0};
        p[i][j] = seen ? weight : W{0};
      }
    put_transposed(tile, ds);
    put_values(tile, c0, rows.width, key);
    __syncthreads();
    add_product<false>(tile, products, [](int, int) { return true; });
    __syncthreads();
    put_transposed(tile, p);
    put_values(tile, c0, rows.value_width, value);
    __syncthreads();
    add_product<false>(tile, outputs, [](int, int) { return true; });
  }
}

// dK and dV of the keys [j0, j0 + 64) from the tiles [first, last) of rows, channels from c0; without the scale.
template <class Rows, class Table, class W = typename Rows::W>
__device__ __forceinline__ void plain_key_gradient(const Rows& rows, int b, int kv_head, int j0, int first, int last,
                                                   Table& table, PlainTile<W>& tile, int c0,
                                                   W (&dk)[4][PlainTile<W>::kQuads * 4],
                                                   W (&dv)[4][PlainTile<W>::kQuads * 4]) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const Logits<W> logits(rows);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) dk[i][c] = dv[i][c] = 0;
  for (int index = first; index < last; ++index) {
    const RowTile at = rows.template tile<64>(b, kv_head, index);
    __syncthreads();
    rows.fill(table, at, true);
    __syncthreads();
    const KeyBounds bounds = table.all_bounds();
    if (at.count == 0 || !bounds.sees(j0, 64)) continue;
    const bool masked = !bounds.whole(j0, 64);
    const auto sees = [&](int i, int n) { return rows.sees(b, table.range[n], j0 + 4 * ty + i); };
    const auto a = [&](int n, int d) { return n < at.count ? rows.a(table, n, d) : W{0}; };
    const auto y = [&](int n, int e) { return n < at.count ? rows.y(table, n, e) : W{0}; };
    W p[4][4], ds[4][4];
    dot_tile(
        tile, rows.width,
        [&](int n, int d) {
          return j0 + n < rows.keys ? widen<W>(rows.k.at(b, j0 + n, kv_head)[d]) + rows.k_bias : W{0};
        },
        a, p);
    dot_tile(
        tile, rows.value_width,
        [&](int n, int e) {
          return j0 + n < rows.keys ? widen<W>(rows.v.at(b, j0 + n, kv_head)[e]) + rows.v_bias : W{0};
        },
        y, ds);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int n = 4 * tx + j;
        W slope = ds[i][j] - table.delta[n];
        const W logit = logits(p[i][j], slope);
        const bool seen = !masked || sees(i, n);
        p[i][j] = seen ? exp2(logit - table.lse[n]) : W{0};
        ds[i][j] = seen ? slope * p[i][j] : W{0};
      }
    put_transposed(tile, p);
    put_values(tile, c0, rows.value_width, y);
    __syncthreads();
    add_product(tile, masked, dv, sees);
    __syncthreads();
    put_transposed(tile, ds);
    put_values(tile, c0, rows.width, a);
    __syncthreads();
    add_product(tile, masked, dk, sees);
  }
}

}  // namespace llmeff::cuda
