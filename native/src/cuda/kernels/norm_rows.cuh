// How the norms walk over a row: each thread has every blockDim.x-th group of kPack elements, at most kKept of them,
// which stay in its registers; or any number, one at a time, when kKept = 0.
#pragma once

#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {

#ifdef __CUDACC__

// body(first element, number of the group in this thread) for this thread's groups of a row of n elements.
template <int kPack, int kKept, class F>
__device__ __forceinline__ void each_group(int n, F&& body) {
  if constexpr (kKept > 0) {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int i = (k * blockDim.x + threadIdx.x) * kPack;
      if (i < n) body(i, k);
    }
  } else {
    for (int i = threadIdx.x * kPack; i < n; i += blockDim.x * kPack) body(i, 0);
  }
}

#endif

struct RowThreads {
  dim3 block;  // x threads a row, y rows
};

// launch.operator()<kPack, kKept>(threads): 16-byte groups where the rows are aligned, single elements otherwise; kept
// in registers if `most` threads have room.
template <class T, class F>
void with_row_shape(int64_t n, bool aligned, int most, F&& launch) {
  constexpr int kPack = Pack<T>::kSize, kKept = 4;
  const auto threads_for = [&](int64_t groups) {
    const int64_t x = std::min<int64_t>(most, round_up(ceil_div(groups, kKept), 32));
    return RowThreads{dim3(static_cast<unsigned>(x), x == 32 ? 8 : 1)};
  };
  if (aligned && n <= int64_t{most} * kKept * kPack)
    launch.template operator()<kPack, kKept>(threads_for(n / kPack));
  else if (aligned)
    launch.template operator()<kPack, 0>(threads_for(n / kPack));
  else if (n <= int64_t{most} * kKept)
    launch.template operator()<1, kKept>(threads_for(n));
  else
    launch.template operator()<1, 0>(threads_for(n));
}

}  // namespace llmeff::cuda
