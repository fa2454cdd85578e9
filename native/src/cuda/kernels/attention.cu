// Attention, forward: the choice of a kernel, and the plain one (attention_plain.cuh).
#include "cuda/kernels/attention_hopper.cuh"
#include "cuda/kernels/attention_launch.cuh"
#include "cuda/kernels/attention_mma.h"
#include "cuda/kernels/attention_plain.cuh"
#include "cuda/kernels/cuda_kernels.h"

namespace llmeff::cuda {
namespace {

// blockIdx: x a tile of rows of a head, those that see the most keys first; y a chunk of output channels; z a part of
// the keys.
template <class T>
__global__ __launch_bounds__(256) void attention_plain_kernel(AttentionRows<T> rows, AttentionOutput<T> out) {
  using W = wide_t<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowTable<W, 64> table;
  PlainTile<W>& tile = *reinterpret_cast<PlainTile<W>*>(shared);
  const int heads = rows.batch * rows.kv_heads, head = static_cast<int>(blockIdx.x % heads);
  const int index = rows.template tiles<64>() - 1 - static_cast<int>(blockIdx.x / heads);
  const RowTile at = rows.template tile<64>(head / rows.kv_heads, head % rows.kv_heads, index);
  rows.fill(table, at, false);
  __syncthreads();
  const KeyBounds bounds = table.all_bounds();
  const int2 share = share_of(bounds, static_cast<int>(blockIdx.z), out.parts);
  const int c0 = static_cast<int>(blockIdx.y) * PlainTile<W>::kColumns;
  PlainState<W> state;
  plain_forward(rows, at, table, tile, bounds, share.x, share.y, c0, state);

  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (4 * ty + i >= at.count) continue;
    const int row = at.first + 4 * ty + i, t = row / rows.group, h = at.kv_head * rows.group + row % rows.group;
    const W inverse = state.sum[i] == 0 ? W{0} : 1 / state.sum[i];
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) {
      const int e = c0 + c / 4 * 64 + 4 * tx + c % 4;
      if (e < rows.value_width) out.put(static_cast<int>(blockIdx.z), at.b, t, h, e, state.acc[i][c] * inverse);
    }
    if (tx == 0 && c0 == 0)
      out.put_lse(static_cast<int>(blockIdx.z), at.b, t, h,
                  state.maximum[i] * static_cast<W>(kLn2) + log(state.sum[i]));
  }
}

template <class T>
void attention_plain(Context& cuda, const AttentionRows<T>& rows, const View& o, const View& lse) {
  using W = wide_t<T>;
  const int64_t blocks = static_cast<int64_t>(rows.batch) * rows.kv_heads * rows.template tiles<64>();
  const int columns = (rows.value_width + PlainTile<W>::kColumns - 1) / PlainTile<W>::kColumns;
  const AttentionOutput<T> out =
      attention_output<T>(cuda, o, lse, parts_for(cuda, blocks * columns, (rows.keys + 63) / 64, 4));
  launch(cuda, "attention_plain_kernel", attention_plain_kernel<T>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(columns), static_cast<unsigned>(out.parts)), 256,
         sizeof(PlainTile<W>), rows, out);
  merge_parts(cuda, out);
}

}  // namespace

void CudaKernels::attention(const In& q, const In& k, const In& v, const In& q_doc, const In& k_doc, const In& prefix,
                            double scale, bool causal, int64_t window, int64_t q_offset, double softcap, const Out& o,
                            const Out& lse) {
  if (attention_hopper(cuda_, q, k, v, q_doc, prefix, scale, causal, window, q_offset, softcap, o, lse)) return;
  with_floating(q.dtype, [&]<class T>(TypeTag<T>) {
    const AttentionRows<T> rows =
        attention_rows<T>(cuda_, q, k, v, q_doc, k_doc, prefix, scale, causal, window, q_offset, softcap);
    if constexpr (kMmaType<T>)
      if (mma_supports(cuda_, rows.width, rows.value_width)) return attention_mma(cuda_, rows, o, lse);
    attention_plain(cuda_, rows, o, lse);
  });
}

}  // namespace llmeff::cuda
