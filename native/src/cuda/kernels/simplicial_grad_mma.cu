// 2-simplicial attention, backward, on the tensor cores (attention_mma.cuh).
#include "cuda/kernels/attention_mma_kernels.cuh"
#include "cuda/kernels/simplicial_rows_mma.cuh"

namespace llmeff::cuda {
namespace {

// blockIdx.x: the heads of a tile of one query, the last queries first.
template <int width, class T>
__global__ __launch_bounds__(kMmaThreads) void simplicial_dq_mma_kernel(SimplicialRows<T> rows, T* dq) {
  extern __shared__ __align__(128) unsigned char bytes[];
  __shared__ float sums[width];  // of a head with several tiles
  auto& shared = *reinterpret_cast<MmaRowGradientShared<width>*>(bytes);
  const int of_all = rows.batch * rows.kv_heads, all = static_cast<int>(blockIdx.x % of_all);
  const int b = all / rows.kv_heads, kv_head = all % rows.kv_heads;
  const int group = rows.queries * rows.head_tiles() - 1 - static_cast<int>(blockIdx.x / of_all);
  const int token = group / rows.head_tiles(), first_head = group % rows.head_tiles() * rows.tile_heads;
  const int heads = min(rows.tile_heads, rows.group - first_head), head = kv_head * rows.group + first_head;
  const int2 window = rows.shorts_of(token);
  const KeyRange keys = rows.range_of(token);
  const int tiles = keys.last < keys.first ? 0 : (window.y - window.x + kMmaRows - 1) / kMmaRows;
  const int lane = threadIdx.x % 32, row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  T* const to = dq + ((static_cast<int64_t>(b) * rows.queries + token) * rows.heads + head) * rows.width;

  if (tiles == 0)
    for (int i = threadIdx.x; i < heads * rows.width; i += kMmaThreads) to[i] = narrow<T>(0.0f);
  for (int index = 0; index < tiles; ++index) {
    const RowTile at = rows.template tile<kMmaRows>(b, kv_head, group * rows.short_tiles + index);
    rows.fill(shared.table, at, true);
    __syncthreads();
    float acc[width / 8][4];
    mma_row_gradient<width>(rows, at, shared, shared.table.all_bounds(), acc);
    __syncthreads();
    float* const outputs = shared.outputs();
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int c = 0; c < width / 8; ++c)
        *reinterpret_cast<float2*>(outputs + (row + 8 * half) * width + 8 * c + lane % 4 * 2) =
            make_float2(acc[c][2 * half], acc[c][2 * half + 1]);
    __syncthreads();
    for (int i = threadIdx.x; i < heads * rows.width; i += kMmaThreads) {
      const int h = i / rows.width, d = i % rows.width;
      float total = index == 0 ? 0.0f : sums[d];
      for (int n = h * at.shorts; n < (h + 1) * at.shorts; ++n)
        total += rows.dq(shared.table, n, d, [&](int channel) { return outputs[n * width + channel]; });
      if (index + 1 < tiles)
        sums[d] = total;
      else
        to[i] = narrow<T>(total * rows.scale);
    }
    __syncthreads();
  }
}

}  // namespace

template <class T>
void simplicial_grad_mma(Context& cuda, const SimplicialArguments& x, const View& dout, const float* lse,
                         const float* delta, const View& dq, const View& dk1, const View& dk2, const View& dv1,
                         const View& dv2) {
  const bool second = x.second_is_shorter();
  const auto rows_of = [&](bool a_is_second, int tile_rows) {
    SimplicialRows<T> rows = simplicial_rows<T>(x, a_is_second, tile_rows);
    rows.dout = heads_of<const T>(dout), rows.lse = lse, rows.delta = delta;
    rows.aligned = rows.aligned && rows.dout.aligned(rows.value_width);
    return rows;
  };
  with_mma_width(static_cast<int>(std::max(x.q.shape[3], x.v1.shape[3])), [&](auto width) {
    const SimplicialRows<T> rows = rows_of(second, kMmaRows), key_rows = rows_of(second, kMmaGradRows<width()>);
    mma_key_gradients_of<width()>(cuda, key_rows, second ? dk1 : dk2, second ? dv1 : dv2);
    if constexpr (width() <= 128)
      if (rows.short_tiles == 1 && strip_shared_bytes<width()>(strip_reach(rows)) <= cuda.facts.shared_bytes_per_block)
        return simplicial_rows_mma<width()>(cuda, rows, dq, second ? dk2 : dk1, second ? dv2 : dv1);
    // The rows of a head are more than a tile, or the strips too long: dq by one kernel, and the keys' kernel with the
    // pairs exchanged.
    const int64_t blocks = static_cast<int64_t>(rows.batch) * rows.kv_heads * rows.queries * rows.head_tiles();
    launch(cuda, "simplicial_dq_mma_kernel", simplicial_dq_mma_kernel<width(), T>, dim3(static_cast<unsigned>(blocks)),
           kMmaThreads, sizeof(MmaRowGradientShared<width()>), rows, dq.as<T>());
    mma_key_gradients_of<width()>(cuda, rows_of(!second, kMmaGradRows<width()>), second ? dk2 : dk1,
                                  second ? dv2 : dv1);
  });
}

template void simplicial_grad_mma<bf16>(Context&, const SimplicialArguments&, const View&, const float*, const float*,
                                        const View&, const View&, const View&, const View&, const View&);
template void simplicial_grad_mma<f16>(Context&, const SimplicialArguments&, const View&, const float*, const float*,
                                       const View&, const View&, const View&, const View&, const View&);

}  // namespace llmeff::cuda
