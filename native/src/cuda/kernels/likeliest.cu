// The largest of each row, where it is, and the log-sum-exp, in one pass: a cluster of blocks divides a row.
#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/largest.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 512;

struct Rows {
  const void* x;
  int32_t* ids;
  void* found;  // [3][rows]
  int64_t stride;
  int columns;
};

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads) likeliest_kernel(const __grid_constant__ Rows a) {
  using W = wide_t<T>;
  constexpr int kWarps = kThreads / 32;
  __shared__ Largest<W> warps[kWarps];
  __shared__ Largest<W> all[kMostBlocks];  // of the first block: what all found
  __shared__ uint64_t arrived;
  let_next_begin();
  const unsigned rank = cluster_rank(), blocks = cluster_size();
  if (rank == 0 && threadIdx.x == 0) expect_sent(&arrived, blocks * (2 * sizeof(W) + sizeof(int32_t)));
  cluster_arrive();
  cluster_wait();
  await_earlier();
  const T* const x = static_cast<const T*>(a.x) + blockIdx.y * a.stride;
  const int packs = a.columns / kPack, step = kThreads * static_cast<int>(blocks);
  Largest<W> state = {-INFINITY, 0, INT32_MAX};
  for (int pack = static_cast<int>(rank) * kThreads + threadIdx.x; pack < packs; pack += step)
    state.join(largest_of<W>(load_group<kPack>(x + int64_t{pack} * kPack), pack * kPack));
  state = joined_in_block(state, warps);
  if (threadIdx.x == 0) {
    send(&all[rank].maximum, state.maximum, &arrived, 0);
    send(&all[rank].sum, state.sum, &arrived, 0);
    send(&all[rank].at, state.at, &arrived, 0);
  }
  if (rank != 0) return;
  await_sent(&arrived);
  if (threadIdx.x == 0) {
    state = all[0];
    for (unsigned i = 1; i < blocks; ++i) state.join(all[i]);
    const int64_t rows = gridDim.y, row = blockIdx.y;
    W* const found = static_cast<W*>(a.found);
    a.ids[row] = state.at;
    found[row] = static_cast<W>(state.at);
    found[rows + row] = state.maximum;
    found[2 * rows + row] = log_sum_exp(state);
  }
}

}  // namespace

void CudaKernels::likeliest(const In& x, const Out& ids, const Out& found) {
  const Rows a = {x.data, ids.as<int32_t>(), found.data, x.strides[0], static_cast<int>(x.shape[1])};
  const dim3 grid(1, static_cast<unsigned>(x.shape[0]));
  const bool aligned = rows_aligned({&x});
  with_floating(x.dtype, [&]<class T>(TypeTag<T>) {
    if (aligned) return launch_clusters(cuda_, kMostBlocks, likeliest_kernel<T, Pack<T>::kSize>, grid, kThreads, a);
    launch_clusters(cuda_, kMostBlocks, likeliest_kernel<T, 1>, grid, kThreads, a);
  });
}

}  // namespace llmeff::cuda
