// 2-simplicial attention, forward: the choice of a kernel, and the plain one.
#include "cuda/kernels/attention_hopper.cuh"
#include "cuda/kernels/attention_mma.h"
#include "cuda/kernels/attention_plain.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/simplicial_launch.cuh"
#include "cuda/kernels/simplicial_plain.cuh"

namespace llmeff::cuda {
namespace {

// blockIdx: x the heads of a tile of one query, the last queries first; y a chunk of output channels; z a part of the
// keys.
template <class T>
__global__ __launch_bounds__(256) void simplicial_plain_kernel(SimplicialRows<T> rows, AttentionOutput<T> out) {
  using W = wide_t<T>;
  constexpr int kColumns = PlainTile<W>::kColumns;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowTable<W, 64> table;
  __shared__ HeadSums<W, 64, kColumns> sums;
  PlainTile<W>& tile = *reinterpret_cast<PlainTile<W>*>(shared);
  const int of_all = rows.batch * rows.kv_heads, head = static_cast<int>(blockIdx.x % of_all);
  const int b = head / rows.kv_heads, kv_head = head % rows.kv_heads, part = static_cast<int>(blockIdx.z);
  const int group = rows.queries * rows.head_tiles() - 1 - static_cast<int>(blockIdx.x / of_all);
  const int token = group / rows.head_tiles(), first_head = group % rows.head_tiles() * rows.tile_heads;
  const int heads = min(rows.tile_heads, rows.group - first_head);
  const int2 window = rows.shorts_of(token);
  const KeyRange keys = rows.range_of(token);
  const int tiles = keys.last < keys.first ? 0 : (window.y - window.x + 63) / 64;
  const int c0 = static_cast<int>(blockIdx.y) * kColumns, columns = min(kColumns, rows.value_width - c0);
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;

  if (tiles == 0) {
    for (int i = threadIdx.x; i < heads * columns; i += 256)
      out.put(part, b, token, kv_head * rows.group + first_head + i / columns, c0 + i % columns, W{0});
    if (c0 == 0 && threadIdx.x < heads)
      out.put_lse(part, b, token, kv_head * rows.group + first_head + threadIdx.x, -INFINITY);
  }
  for (int index = 0; index < tiles; ++index) {
    const RowTile at = rows.template tile<64>(b, kv_head, group * rows.short_tiles + index);
    rows.fill(table, at, false);
    __syncthreads();
    const KeyBounds bounds = table.all_bounds();
    const int2 share = share_of(bounds, part, out.parts);
    PlainState<W> state;
    plain_forward(rows, at, table, tile, bounds, share.x, share.y, c0, state);

    if (tx == 0)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sums.row_maximum[4 * ty + i] = state.maximum[i], sums.row_sum[4 * ty + i] = state.sum[i];
    __syncthreads();
    sums.merge(heads, at.shorts, index == 0);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int n = 4 * ty + i;
      if (n >= at.count) continue;
#pragma unroll
      for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) {
        const int e = c / 4 * 64 + 4 * tx + c % 4;
        if (e < columns) tile.values[n][e] = state.acc[i][c] * sums.row_maximum[n] * rows.short_value(table, n, c0 + e);
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < heads * columns; i += 256) {
      const int h = i / columns, e = i % columns;
      W total = index == 0 ? W{0} : sums.acc[e] * sums.shrink[h];
      for (int n = h * at.shorts; n < (h + 1) * at.shorts; ++n) total += tile.values[n][e];
      if (index + 1 < tiles) {
        sums.acc[e] = total;
        continue;
      }
      const W inverse = sums.sum[h] == 0 ? W{0} : 1 / sums.sum[h];
      out.put(part, b, token, kv_head * rows.group + first_head + h, c0 + e, total * inverse);
    }
    if (index + 1 == tiles && c0 == 0 && threadIdx.x < heads)
      out.put_lse(part, b, token, kv_head * rows.group + first_head + threadIdx.x,
                  sums.maximum[threadIdx.x] * static_cast<W>(kLn2) + log(sums.sum[threadIdx.x]));
    __syncthreads();
  }
}

template <class T>
void simplicial_plain(Context& cuda, const SimplicialArguments& x, const View& o, const View& lse) {
  using W = wide_t<T>;
  const SimplicialRows<T> rows = simplicial_rows<T>(x, x.second_is_shorter(), 64);
  const int64_t blocks = static_cast<int64_t>(rows.batch) * rows.kv_heads * rows.queries * rows.head_tiles();
  const int columns = (rows.value_width + PlainTile<W>::kColumns - 1) / PlainTile<W>::kColumns;
  const int64_t reach = x.reach(rows.keys, rows.window_b);
  const AttentionOutput<T> out =
      attention_output<T>(cuda, o, lse, parts_for(cuda, blocks * columns, (reach + 63) / 64, 2));
  launch(cuda, "simplicial_plain_kernel", simplicial_plain_kernel<T>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(columns), static_cast<unsigned>(out.parts)), 256,
         sizeof(PlainTile<W>), rows, out);
  merge_parts(cuda, out);
}

}  // namespace

void CudaKernels::simplicial_attention(const In& q, const In& k1, const In& k2, const In& v1, const In& v2,
                                       double scale, bool causal, int64_t w1, int64_t w2, double k2_bias,
                                       double v2_bias, int64_t q_offset, int64_t k1_offset, int64_t k2_offset,
                                       bool determinant, const Out& o, const Out& lse) {
  const SimplicialArguments x = {q,  k1,      k2,      v1,       v2,        scale,     causal,     w1,
                                 w2, k2_bias, v2_bias, q_offset, k1_offset, k2_offset, determinant};
  if (simplicial_hopper(cuda_, x, o, lse)) return;
  with_floating(q.dtype, [&]<class T>(TypeTag<T>) {
    if constexpr (kMmaType<T>)
      if (mma_supports(cuda_, q.shape[3], v1.shape[3])) return simplicial_mma<T>(cuda_, x, o, lse);
    simplicial_plain<T>(cuda_, x, o, lse);
  });
}

}  // namespace llmeff::cuda
