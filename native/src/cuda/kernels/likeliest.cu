// The largest of each row, where it is, and the log-sum-exp, in one pass: a cluster of blocks divides a row.
#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/functions.cuh"
#include "cuda/kernels/rows.cuh"

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

// NaN is larger than any number; of equals the first counts.
template <class W>
struct Largest {
  W maximum, sum;  // sum of e^(x - maximum)
  int32_t at;

  __device__ void join(const Largest& other) {
    if (other.at == INT32_MAX) return;
    const bool nan = maximum != maximum, other_nan = other.maximum != other.maximum;
    const bool better = at == INT32_MAX || (nan != other_nan                  ? other_nan
                                            : nan || maximum == other.maximum ? other.at < at
                                                                              : other.maximum > maximum);
    const W most = better ? other.maximum : maximum;
    sum = scaled(sum, maximum, most) + scaled(other.sum, other.maximum, most);
    if (better) maximum = other.maximum, at = other.at;
  }
  static __device__ W scaled(W sum, W from, W to) { return from == to || sum == 0 ? sum : sum * exp(from - to); }
};

template <class W>
__device__ Largest<W> shuffled(const Largest<W>& x, int distance) {
  return {__shfl_xor_sync(0xFFFFFFFFu, x.maximum, distance), __shfl_xor_sync(0xFFFFFFFFu, x.sum, distance),
          __shfl_xor_sync(0xFFFFFFFFu, x.at, distance)};
}

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
  for (int pack = static_cast<int>(rank) * kThreads + threadIdx.x; pack < packs; pack += step) {
    const Group<T, kPack> group = load_group<kPack>(x + int64_t{pack} * kPack);
    Largest<W> own = {widen<W>(group.at[0]), 1, pack * kPack};
#pragma unroll
    for (int e = 1; e < kPack; ++e) {
      const W value = widen<W>(group.at[e]);
      // The first NaN stays: nothing is larger.
      if (value > own.maximum || (value != value && own.maximum == own.maximum))
        own.maximum = value, own.at = pack * kPack + e;
    }
    own.sum = 0;
#pragma unroll
    for (int e = 0; e < kPack; ++e) {
      const W value = widen<W>(group.at[e]);
      own.sum += value == own.maximum ? W{1} : exp(value - own.maximum);
    }
    state.join(own);
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) state.join(shuffled(state, distance));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = state;
  __syncthreads();
  if (threadIdx.x < 32) {
    state = warps[min(static_cast<int>(threadIdx.x), kWarps - 1)];
#pragma unroll
    for (int distance = kWarps / 2; distance > 0; distance /= 2) state.join(shuffled(state, distance));
  }
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
    // Of nothing but -inf, or with +inf, that is all there is to add.
    found[2 * rows + row] = isinf(state.maximum) ? state.maximum : state.maximum + log(state.sum);
  }
}

}  // namespace

void CudaKernels::likeliest(const In& x, const Out& ids, const Out& found) {
  const Rows a = {x.data, ids.as<int32_t>(), found.data, x.strides[0], static_cast<int>(x.shape[1])};
  const dim3 grid(1, static_cast<unsigned>(x.shape[0]));
  const bool aligned = rows_aligned({&x});
  with_floating(x.dtype, [&]<class T>(TypeTag<T>) {
    if (aligned) return launch_clusters(cuda_, likeliest_kernel<T, Pack<T>::kSize>, grid, kThreads, a);
    launch_clusters(cuda_, likeliest_kernel<T, 1>, grid, kThreads, a);
  });
}

}  // namespace llmeff::cuda
