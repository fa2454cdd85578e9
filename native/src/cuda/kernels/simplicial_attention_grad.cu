// 2-simplicial attention, backward (simplicial-attention.md §4): one kernel owns queries and makes dq, and the strips
// of simplicial_strips.cuh for the short pair; one owns rows of the long pair and makes their dk and dv. Where the
// short rows of a head are more than a tile, that kernel runs again with the roles of the pairs exchanged, since the
// operation is symmetric in them.
#include "cuda/kernels/attention_hopper.cuh"
#include "cuda/kernels/attention_mma.h"
#include "cuda/kernels/attention_plain_grad.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/simplicial_launch.cuh"
#include "cuda/kernels/simplicial_plain.cuh"
#include "cuda/kernels/simplicial_strips.cuh"

namespace llmeff::cuda {
namespace {

// blockIdx: x the heads of a tile of one query, y a chunk of `step` channels of dq: whole 3-chunks.
template <class T>
__global__ __launch_bounds__(256) void simplicial_dq_plain_kernel(SimplicialRows<T> rows, int step, T* dq) {
  using W = wide_t<T>;
  constexpr int kColumns = PlainTile<W>::kColumns;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowTable<W, 64> table;
  __shared__ W sums[kColumns];  // of a head with several tiles
  PlainTile<W>& tile = *reinterpret_cast<PlainTile<W>*>(shared);
  const int of_all = rows.batch * rows.kv_heads, head = static_cast<int>(blockIdx.x % of_all);
  const int b = head / rows.kv_heads, kv_head = head % rows.kv_heads;
  const int group = rows.queries * rows.head_tiles() - 1 - static_cast<int>(blockIdx.x / of_all);
  const int token = group / rows.head_tiles(), first_head = group % rows.head_tiles() * rows.tile_heads;
  const int heads = min(rows.tile_heads, rows.group - first_head);
  const int2 window = rows.shorts_of(token);
  const KeyRange keys = rows.range_of(token);
  const int tiles = keys.last < keys.first ? 0 : (window.y - window.x + 63) / 64;
  const int c0 = static_cast<int>(blockIdx.y) * step, columns = min(step, rows.width - c0);
  T* const to =
      dq +
      ((static_cast<int64_t>(b) * rows.queries + token) * rows.heads + kv_head * rows.group + first_head) * rows.width;

  if (tiles == 0)
    for (int i = threadIdx.x; i < heads * columns; i += 256)
      to[i / columns * rows.width + c0 + i % columns] = narrow<T>(W{0});
  for (int index = 0; index < tiles; ++index) {
    const RowTile at = rows.template tile<64>(b, kv_head, group * rows.short_tiles + index);
    rows.fill(table, at, true);
    __syncthreads();
    W g[4][PlainTile<W>::kQuads * 4];
    plain_row_gradient(rows, at, table, tile, table.all_bounds(), c0, g);
    __syncthreads();
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) tile.values[4 * ty + i][c / 4 * 64 + 4 * tx + c % 4] = g[i][c];
    __syncthreads();
    for (int i = threadIdx.x; i < heads * columns; i += 256) {
      const int h = i / columns, d = i % columns;
      W total = index == 0 ? W{0} : sums[d];
      for (int n = h * at.shorts; n < (h + 1) * at.shorts; ++n)
        total += rows.dq(table, n, c0 + d, [&](int channel) { return tile.values[n][channel - c0]; });
      if (index + 1 < tiles)
        sums[d] = total;
      else
        to[h * rows.width + c0 + d] = narrow<T>(total * rows.scale);
    }
    __syncthreads();
  }
}

// What a thread has of rows and columns of a tile, to tile.values.
template <class W>
__device__ __forceinline__ void put_outputs(PlainTile<W>& tile, const W (&acc)[4][PlainTile<W>::kQuads * 4]) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) tile.values[4 * ty + i][c / 4 * 64 + 4 * tx + c % 4] = acc[i][c];
}

// blockIdx: x a query of a head of keys, the last first; y a part of its heads; z a chunk of `step` channels.
template <class T>
__global__ __launch_bounds__(256) void simplicial_rows_plain_kernel(SimplicialRows<T> rows, Strips<wide_t<T>> strips,
                                                                    int step, T* dq) {
  using W = wide_t<T>;
  constexpr int kColumns = PlainTile<W>::kColumns;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowTable<W, 64> table;
  PlainTile<W>& tile = *reinterpret_cast<PlainTile<W>*>(shared);
  W* const dka = reinterpret_cast<W*>(shared + sizeof(tile));  // [reach, kColumns], and dva
  W* const dva = dka + strips.reach * kColumns;
  const int of_all = rows.batch * rows.kv_heads, all = static_cast<int>(blockIdx.x % of_all);
  const int b = all / rows.kv_heads, kv_head = all % rows.kv_heads, part = static_cast<int>(blockIdx.y);
  const int local = strips.count - 1 - static_cast<int>(blockIdx.x / of_all), token = strips.first + local;
  const int share = (rows.head_tiles() + strips.parts - 1) / strips.parts;
  const int first = part * share, last = min(rows.head_tiles(), first + share);
  const KeyRange keys = rows.range_of(token);
  const int2 window = rows.shorts_of(token);
  const bool empty = keys.last < keys.first || window.y <= window.x;
  const int c0 = static_cast<int>(blockIdx.z) * step;
  const int columns = max(0, min(step, rows.width - c0)), value_columns = max(0, min(step, rows.value_width - c0));
  for (int i = threadIdx.x; i < 2 * strips.reach * kColumns; i += 256) dka[i] = 0;

  for (int index = first; index < last; ++index) {
    const RowTile at = rows.template tile<64>(b, kv_head, token * rows.head_tiles() + index);
    const int heads = min(rows.tile_heads, rows.group - at.head), head = kv_head * rows.group + at.head;
    T* const to = dq + ((static_cast<int64_t>(b) * rows.queries + token) * rows.heads + head) * rows.width + c0;
    if (empty) {
      for (int i = threadIdx.x; i < heads * columns; i += 256)
        to[i / columns * rows.width + i % columns] = narrow<T>(W{0});
      continue;
    }
    __syncthreads();
    rows.fill(table, at, true);
    __syncthreads();
    W products[4][PlainTile<W>::kQuads * 4], outputs[4][PlainTile<W>::kQuads * 4];
    plain_row_products(rows, at, table, tile, table.all_bounds(), c0, products, outputs);
    __syncthreads();
    put_outputs(tile, products);
    __syncthreads();
    const auto product = [&](int n) { return [&tile, n, c0](int channel) { return tile.values[n][channel - c0]; }; };
    for (int i = threadIdx.x; i < heads * columns; i += 256) {
      const int h = i / columns, d = i % columns;
      W total = 0;
      for (int n = h * at.shorts; n < (h + 1) * at.shorts; ++n) total += rows.dq(table, n, c0 + d, product(n));
      to[h * rows.width + d] = narrow<T>(total * rows.scale);
    }
    for (int i = threadIdx.x; i < at.shorts * columns; i += 256) {
      const int r = i / columns, d = i % columns;
      W total = 0;
      for (int n = r; n < at.count; n += at.shorts) total += rows.dka(table, n, c0 + d, product(n));
      dka[r * kColumns + d] += total;
    }
    __syncthreads();
    put_outputs(tile, outputs);
    __syncthreads();
    for (int i = threadIdx.x; i < at.shorts * value_columns; i += 256) {
      const int r = i / value_columns, e = i % value_columns;
      W total = 0;
      for (int n = r; n < at.count; n += at.shorts)
        total += tile.values[n][e] * widen<W>(rows.dout.data[table.y[n] + c0 + e]);
      dva[r * kColumns + e] += total;
    }
  }
  __syncthreads();
  const int64_t strip = ((static_cast<int64_t>(all) * strips.count + local) * strips.parts + part) * strips.reach;
  for (int i = threadIdx.x; i < strips.reach * columns; i += 256)
    strips.dka[(strip + i / columns) * rows.width + c0 + i % columns] = dka[i / columns * kColumns + i % columns];
  for (int i = threadIdx.x; i < strips.reach * value_columns; i += 256)
    strips.dva[(strip + i / value_columns) * rows.value_width + c0 + i % value_columns] =
        dva[i / value_columns * kColumns + i % value_columns];
}

template <class T>
void simplicial_grad_plain(Context& cuda, const SimplicialArguments& x, const View& dout, const wide_t<T>* lse,
                           const wide_t<T>* delta, const View& dq, const View& dk1, const View& dk2, const View& dv1,
                           const View& dv2) {
  using Tile = PlainTile<wide_t<T>>;
  const bool second = x.second_is_shorter();
  const auto rows_of = [&](bool a_is_second) {
    SimplicialRows<T> rows = simplicial_rows<T>(x, a_is_second, 64);
    rows.dout = heads_of<const T>(dout), rows.lse = lse, rows.delta = delta;
    return rows;
  };
  const SimplicialRows<T> rows = rows_of(second);
  const View &dka = second ? dk2 : dk1, &dva = second ? dv2 : dv1;
  plain_key_gradients(cuda, rows, second ? dk1 : dk2, second ? dv1 : dv2);
  const int step = rows.chunks > 0 ? Tile::kColumns / 3 * 3 : Tile::kColumns;
  const size_t strip_bytes =
      sizeof(Tile) + 2 * sizeof(wide_t<T>) * static_cast<size_t>(strip_reach(rows)) * Tile::kColumns;
  if (rows.short_tiles == 1 && strip_bytes + (size_t{8} << 10) <= cuda.facts.shared_bytes_per_block) {
    const int chunks = (std::max(rows.width, rows.value_width) + step - 1) / step;
    for_strips(cuda, rows, dka, dva, chunks, [&](const Strips<wide_t<T>>& strips, int64_t heads) {
      launch(cuda, "simplicial_rows_plain_kernel", simplicial_rows_plain_kernel<T>,
             dim3(static_cast<unsigned>(heads * strips.count), static_cast<unsigned>(strips.parts),
                  static_cast<unsigned>(chunks)),
             256, strip_bytes, rows, strips, step, dq.as<T>());
    });
    return;
  }
  const int64_t blocks = static_cast<int64_t>(rows.batch) * rows.kv_heads * rows.queries * rows.head_tiles();
  const int columns = (rows.width + step - 1) / step;
  launch(cuda, "simplicial_dq_plain_kernel", simplicial_dq_plain_kernel<T>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(columns)), 256, sizeof(Tile), rows, step,
         dq.as<T>());
  plain_key_gradients(cuda, rows_of(!second), dka, dva);
}

}  // namespace

void CudaKernels::simplicial_attention_grad(const In& dout, const In& q, const In& k1, const In& k2, const In& v1,
                                            const In& v2, const In& o, const In& lse, double scale, bool causal,
                                            int64_t w1, int64_t w2, double k2_bias, double v2_bias, int64_t q_offset,
                                            int64_t k1_offset, int64_t k2_offset, bool determinant, const Out& dq,
                                            const Out& dk1, const Out& dk2, const Out& dv1, const Out& dv2) {
  const SimplicialArguments x = {q,  k1,      k2,      v1,       v2,        scale,     causal,     w1,
                                 w2, k2_bias, v2_bias, q_offset, k1_offset, k2_offset, determinant};
  if (simplicial_grad_hopper(cuda_, x, dout, o, lse, dq, dk1, dk2, dv1, dv2)) return;
  with_floating(q.dtype, [&]<class T>(TypeTag<T>) {
    using W = wide_t<T>;
    W* const delta = cuda_.scratch<W>(lse.size());
    attention_delta<T>(cuda_, dout, o, View{}, delta);
    if constexpr (kMmaType<T>)
      if (mma_supports(cuda_, q.shape[3], v1.shape[3]))
        return simplicial_grad_mma<T>(cuda_, x, dout, lse.as<const W>(), delta, dq, dk1, dk2, dv1, dv2);
    simplicial_grad_plain<T>(cuda_, x, dout, lse.as<const W>(), delta, dq, dk1, dk2, dv1, dv2);
  });
}

}  // namespace llmeff::cuda
