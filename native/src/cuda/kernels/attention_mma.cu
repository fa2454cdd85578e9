// Attention, forward, on the tensor cores (attention_mma.cuh).
#include "cuda/kernels/attention_mma_kernels.cuh"

namespace llmeff::cuda {
namespace {

// blockIdx: x a tile of rows of a head, those that see the most keys first; z a part of the keys.
template <int width, int fragments, class T>
__global__ __launch_bounds__(kMmaThreads) void attention_mma_kernel(AttentionRows<T> rows, AttentionOutput<T> out) {
  using Shared = MmaForwardShared<width, fragments>;
  extern __shared__ __align__(128) unsigned char bytes[];
  auto& shared = *reinterpret_cast<Shared*>(bytes);
  const int heads = rows.batch * rows.kv_heads, head = static_cast<int>(blockIdx.x % heads);
  const int index = rows.template tiles<Shared::kRows>() - 1 - static_cast<int>(blockIdx.x / heads);
  const RowTile at = rows.template tile<Shared::kRows>(head / rows.kv_heads, head % rows.kv_heads, index);
  rows.fill(shared.table, at, false);
  __syncthreads();
  const KeyBounds bounds = shared.table.all_bounds();
  const int part = static_cast<int>(blockIdx.z);
  const int2 share = share_of(bounds, part, out.parts);
  MmaState<width, fragments> state;
  mma_forward<width, fragments>(rows, at, shared, bounds, share.x, share.y, state);

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < fragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int n = (static_cast<int>(threadIdx.x) / 32 * fragments + m) * 16 + lane / 4 + 8 * half;
      if (n >= at.count) continue;
      const int row = at.first + n, t = row / rows.group, h = at.kv_head * rows.group + row % rows.group;
      const float inverse = state.sum[m][half] == 0 ? 0.0f : 1 / state.sum[m][half];
#pragma unroll
      for (int c = 0; c < width / 8; ++c) {
        const int e = 8 * c + lane % 4 * 2;
        if (e < rows.value_width)
          out.put_two(part, at.b, t, h, e, state.acc[m][c][2 * half] * inverse,
                      state.acc[m][c][2 * half + 1] * inverse);
      }
      if (lane % 4 == 0)
        out.put_lse(part, at.b, t, h, state.maximum[m][half] * static_cast<float>(kLn2) + logf(state.sum[m][half]));
    }
}

template <int width, int fragments, class T>
void attention_mma_of(Context& cuda, const AttentionRows<T>& rows, const View& o, const View& lse) {
  using Shared = MmaForwardShared<width, fragments>;
  const int64_t blocks = static_cast<int64_t>(rows.batch) * rows.kv_heads * rows.template tiles<Shared::kRows>();
  const AttentionOutput<T> out = attention_output<T>(cuda, o, lse, parts_for(cuda, blocks, (rows.keys + 63) / 64, 4));
  launch(cuda, "attention_mma_kernel", attention_mma_kernel<width, fragments, T>,
         dim3(static_cast<unsigned>(blocks), 1, static_cast<unsigned>(out.parts)), kMmaThreads, sizeof(Shared), rows,
         out);
  merge_parts(cuda, out);
}

}  // namespace

template <class T>
void attention_mma(Context& cuda, const AttentionRows<T>& rows, const View& o, const View& lse) {
  with_mma_width(std::max(rows.width, rows.value_width), [&](auto width) {
    if constexpr (width() <= 128)
      if (rows.rows() > kMmaRows) return attention_mma_of<width(), 2>(cuda, rows, o, lse);
    attention_mma_of<width(), 1>(cuda, rows, o, lse);
  });
}

template void attention_mma<bf16>(Context&, const AttentionRows<bf16>&, const View&, const View&);
template void attention_mma<f16>(Context&, const AttentionRows<f16>&, const View&, const View&);

}  // namespace llmeff::cuda
