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
// in registers if `most` threads have room. A row that fits has one warp, which needs no barriers; in a wider one each
// thread has less, so that more of them load at a time.
template <class T, class F>
void with_row_shape(int64_t n, bool aligned, int most, F&& launch) {
  constexpr int kPack = Pack<T>::kSize, kMany = 4, kFew = 2;
  const int64_t groups = aligned ? n / kPack : n;
  const auto threads_for = [&](int kept) {
    const int64_t x = std::min<int64_t>(most, round_up(ceil_div(groups, kept), 32));
    return RowThreads{dim3(static_cast<unsigned>(x), x == 32 ? 8 : 1)};
  };
  if (aligned && (groups <= 32 * kMany || (groups > most * kFew && groups <= most * kMany)))
    launch.template operator()<kPack, kMany>(threads_for(kMany));
  else if (aligned && groups <= most * kFew)
    launch.template operator()<kPack, kFew>(threads_for(kFew));
  else if (aligned)
    launch.template operator()<kPack, 0>(threads_for(kMany));
  else if (groups <= most * kMany)
    launch.template operator()<1, kMany>(threads_for(kMany));
  else
    launch.template operator()<1, 0>(threads_for(kMany));
}

}  // namespace llmeff::cuda
