// Attention, backward, on the tensor cores (attention_mma.cuh).
#include "cuda/kernels/attention_mma_kernels.cuh"

namespace llmeff::cuda {
namespace {

// blockIdx.x: a tile of rows of a head.
template <int width, class T>
__global__ __launch_bounds__(kMmaThreads) void attention_dq_mma_kernel(AttentionRows<T> rows, T* dq) {
  extern __shared__ __align__(128) unsigned char bytes[];
  auto& shared = *reinterpret_cast<MmaRowGradientShared<width>*>(bytes);
  const int heads = rows.batch * rows.kv_heads, head = static_cast<int>(blockIdx.x % heads);
  const int index = rows.template tiles<kMmaRows>() - 1 - static_cast<int>(blockIdx.x / heads);
  const RowTile at = rows.template tile<kMmaRows>(head / rows.kv_heads, head % rows.kv_heads, index);
  rows.fill(shared.table, at, true);
  __syncthreads();
  float acc[width / 8][4];
  mma_row_gradient<width>(rows, at, shared, shared.table.all_bounds(), acc);

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int n = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + 8 * half;
    if (n >= at.count) continue;
    const int row = at.first + n, t = row / rows.group, h = at.kv_head * rows.group + row % rows.group;
    T* const to = dq + ((static_cast<int64_t>(at.b) * rows.queries + t) * rows.heads + h) * rows.width;
#pragma unroll
    for (int c = 0; c < width / 8; ++c)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int d = 8 * c + lane % 4 * 2 + e;
        if (d < rows.width) to[d] = narrow<T>(acc[c][2 * half + e] * rows.scale);
      }
  }
}

}  // namespace

template <class T>
void attention_grad_mma(Context& cuda, const AttentionRows<T>& rows, const View& dq, const View& dk, const View& dv) {
  const int64_t blocks = static_cast<int64_t>(rows.batch) * rows.kv_heads * rows.template tiles<kMmaRows>();
  with_mma_width(std::max(rows.width, rows.value_width), [&](auto width) {
    launch(cuda, "attention_dq_mma_kernel", attention_dq_mma_kernel<width(), T>, dim3(static_cast<unsigned>(blocks)),
           kMmaThreads, sizeof(MmaRowGradientShared<width()>), rows, dq.as<T>());
    mma_key_gradients_of<width()>(cuda, rows, dk, dv);
  });
}

template void attention_grad_mma<bf16>(Context&, const AttentionRows<bf16>&, const View&, const View&, const View&);
template void attention_grad_mma<f16>(Context&, const AttentionRows<f16>&, const View&, const View&, const View&);

}  // namespace llmeff::cuda
