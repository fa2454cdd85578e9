// 2-simplicial attention, forward, on the tensor cores (attention_mma.cuh).
#include "cuda/kernels/attention_mma_kernels.cuh"
#include "cuda/kernels/simplicial_plain.cuh"

namespace llmeff::cuda {
namespace {

// blockIdx: x the heads of a tile of one query, the last queries first; z a part of the keys.
template <int width, int fragments, class T>
__global__ __launch_bounds__(kMmaThreads) void simplicial_mma_kernel(SimplicialRows<T> rows, AttentionOutput<T> out) {
  using Shared = MmaForwardShared<width, fragments>;
  constexpr int kRows = Shared::kRows;
  extern __shared__ __align__(128) unsigned char bytes[];
  __shared__ HeadSums<float, kRows, width> sums;
  auto& shared = *reinterpret_cast<Shared*>(bytes);
  const int of_all = rows.batch * rows.kv_heads, all = static_cast<int>(blockIdx.x % of_all);
  const int b = all / rows.kv_heads, kv_head = all % rows.kv_heads, part = static_cast<int>(blockIdx.z);
  const int group = rows.queries * rows.head_tiles() - 1 - static_cast<int>(blockIdx.x / of_all);
  const int token = group / rows.head_tiles(), first_head = group % rows.head_tiles() * rows.tile_heads;
  const int heads = min(rows.tile_heads, rows.group - first_head), head = kv_head * rows.group + first_head;
  const int2 window = rows.shorts_of(token);
  const KeyRange keys = rows.range_of(token);
  const int tiles = keys.last < keys.first ? 0 : (window.y - window.x + kRows - 1) / kRows;
  const int lane = threadIdx.x % 32, row = static_cast<int>(threadIdx.x) / 32 * 16 * fragments + lane / 4;

  if (tiles == 0) {
    for (int i = threadIdx.x; i < heads * rows.value_width; i += kMmaThreads)
      out.put(part, b, token, head + i / rows.value_width, i % rows.value_width, 0.0f);
    if (threadIdx.x < heads) out.put_lse(part, b, token, head + threadIdx.x, -INFINITY);
  }
  for (int index = 0; index < tiles; ++index) {
    const RowTile at = rows.template tile<kRows>(b, kv_head, group * rows.short_tiles + index);
    rows.fill(shared.table, at, false);
    __syncthreads();
    const KeyBounds bounds = shared.table.all_bounds();
    const int2 share = share_of(bounds, part, out.parts);
    MmaState<width, fragments> state;
    mma_forward<width, fragments>(rows, at, shared, bounds, share.x, share.y, state);

    if (lane % 4 == 0)
#pragma unroll
      for (int m = 0; m < fragments; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          sums.row_maximum[row + 16 * m + 8 * half] = state.maximum[m][half];
          sums.row_sum[row + 16 * m + 8 * half] = state.sum[m][half];
        }
    __syncthreads();
    sums.merge(heads, at.shorts, index == 0);
    __syncthreads();
    float* const outputs = shared.outputs();
#pragma unroll
    for (int m = 0; m < fragments; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int n = row + 16 * m + 8 * half;
        if (n >= at.count) continue;
        const float weight = sums.row_maximum[n];
#pragma unroll
        for (int c = 0; c < width / 8; ++c)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int channel = 8 * c + lane % 4 * 2 + e;
            if (channel < rows.value_width)
              outputs[n * width + channel] =
                  state.acc[m][c][2 * half + e] * weight * rows.short_value(shared.table, n, channel);
          }
      }
    __syncthreads();
    for (int i = threadIdx.x; i < heads * rows.value_width; i += kMmaThreads) {
      const int h = i / rows.value_width, e = i % rows.value_width;
      float total = index == 0 ? 0.0f : sums.acc[e] * sums.shrink[h];
      for (int n = h * at.shorts; n < (h + 1) * at.shorts; ++n) total += outputs[n * width + e];
      if (index + 1 < tiles) {
        sums.acc[e] = total;
        continue;
      }
      out.put(part, b, token, head + h, e, sums.sum[h] == 0 ? 0.0f : total / sums.sum[h]);
    }
    if (index + 1 == tiles && threadIdx.x < heads)
      out.put_lse(part, b, token, head + threadIdx.x,
                  sums.maximum[threadIdx.x] * static_cast<float>(kLn2) + logf(sums.sum[threadIdx.x]));
    __syncthreads();
  }
}

template <int width, int fragments, class T>
void simplicial_mma_of(Context& cuda, const SimplicialArguments& x, const View& o, const View& lse) {
  using Shared = MmaForwardShared<width, fragments>;
  const SimplicialRows<T> rows = simplicial_rows<T>(x, x.second_is_shorter(), Shared::kRows);
  const int64_t blocks = static_cast<int64_t>(rows.batch) * rows.kv_heads * rows.queries * rows.head_tiles();
  const int64_t reach = x.reach(rows.keys, rows.window_b);
  const AttentionOutput<T> out = attention_output<T>(cuda, o, lse, parts_for(cuda, blocks, (reach + 63) / 64, 2));
  launch(cuda, "simplicial_mma_kernel", simplicial_mma_kernel<width, fragments, T>,
         dim3(static_cast<unsigned>(blocks), 1, static_cast<unsigned>(out.parts)), kMmaThreads, sizeof(Shared), rows,
         out);
  merge_parts(cuda, out);
}

}  // namespace

template <class T>
void simplicial_mma(Context& cuda, const SimplicialArguments& x, const View& o, const View& lse) {
  const int64_t group = x.q.shape[2] / x.k1.shape[2];
  const int64_t rows = group * std::min(x.reach(x.k1.shape[1], x.w1), x.reach(x.k2.shape[1], x.w2));
  with_mma_width(static_cast<int>(std::max(x.q.shape[3], x.v1.shape[3])), [&](auto width) {
    if constexpr (width() <= 128)
      if (rows > kMmaRows) return simplicial_mma_of<width(), 2, T>(cuda, x, o, lse);
    simplicial_mma_of<width(), 1, T>(cuda, x, o, lse);
  });
}

template void simplicial_mma<bf16>(Context&, const SimplicialArguments&, const View&, const View&);
template void simplicial_mma<f16>(Context&, const SimplicialArguments&, const View&, const View&);

}  // namespace llmeff::cuda
