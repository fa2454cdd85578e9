// The plain kernel that owns keys: dk and dv of attention, and of either pair of 2-simplicial attention.
#pragma once

#include "cuda/kernels/attention_launch.cuh"
#include "cuda/kernels/attention_plain.cuh"

namespace llmeff::cuda {

// blockIdx: x a tile of keys of a head, y a chunk of channels, z a part of the tiles of rows.
template <class Rows>
__global__ __launch_bounds__(256) void plain_key_gradient_kernel(Rows rows, PartialSum<typename Rows::T> dk,
                                                                 PartialSum<typename Rows::T> dv) {
  using W = typename Rows::W;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowTable<W, 64> table;
  PlainTile<W>& tile = *reinterpret_cast<PlainTile<W>*>(shared);
  const int heads = rows.batch * rows.kv_heads, head = static_cast<int>(blockIdx.x % heads);
  const int b = head / rows.kv_heads, kv_head = head % rows.kv_heads;
  const int j0 = static_cast<int>(blockIdx.x / heads) * 64, part = static_cast<int>(blockIdx.z);
  const int2 seeing = rows.template tiles_seeing<64>(j0, 64);
  const int share = (seeing.y - seeing.x + dk.parts - 1) / dk.parts;
  const int first = min(seeing.y, seeing.x + part * share), last = min(seeing.y, first + share);
  const int c0 = static_cast<int>(blockIdx.y) * PlainTile<W>::kColumns;
  W dk_acc[4][PlainTile<W>::kQuads * 4], dv_acc[4][PlainTile<W>::kQuads * 4];
  plain_key_gradient(rows, b, kv_head, j0, first, last, table, tile, c0, dk_acc, dv_acc);

  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int j = j0 + 4 * ty + i;
    if (j >= rows.keys) continue;
    const int64_t row = (static_cast<int64_t>(b) * rows.keys + j) * rows.kv_heads + kv_head;
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) {
      const int channel = c0 + c / 4 * 64 + 4 * tx + c % 4;
      if (channel < rows.width) dk.put(part, row * rows.width + channel, dk_acc[i][c] * rows.scale);
      if (channel < rows.value_width) dv.put(part, row * rows.value_width + channel, dv_acc[i][c]);
    }
  }
}

template <class Rows>
void plain_key_gradients(Context& cuda, const Rows& rows, const View& dk, const View& dv) {
  using T = typename Rows::T;
  using Tile = PlainTile<typename Rows::W>;
  const int64_t tiles = static_cast<int64_t>(rows.batch) * rows.kv_heads * ((rows.keys + 63) / 64);
  const int columns = (std::max(rows.width, rows.value_width) + Tile::kColumns - 1) / Tile::kColumns;
  const int parts = parts_for(cuda, tiles * columns, rows.template tiles<64>(), 8);
  const PartialSum<T> dk_sum = partial_sum<T>(cuda, dk, parts), dv_sum = partial_sum<T>(cuda, dv, parts);
  launch(cuda, "plain_key_gradient_kernel", plain_key_gradient_kernel<Rows>,
         dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(columns), static_cast<unsigned>(parts)), 256,
         sizeof(Tile), rows, dk_sum, dv_sum);
  add_parts(cuda, dk_sum);
  add_parts(cuda, dv_sum);
}

}  // namespace llmeff::cuda
