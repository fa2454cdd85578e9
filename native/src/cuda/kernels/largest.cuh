// The largest of numbers, where it is, and their log-sum-exp, in one pass.
#pragma once

#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {

#ifdef __CUDACC__

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

// Of neighbours, of which the first is number `first`.
template <class W, class T, int kPack>
__device__ Largest<W> largest_of(const Group<T, kPack>& group, int first) {
  Largest<W> own = {widen<W>(group.at[0]), 1, first};
#pragma unroll
  for (int e = 1; e < kPack; ++e) {
    const W value = widen<W>(group.at[e]);
    // The first NaN stays: nothing is larger.
    if (value > own.maximum || (value != value && own.maximum == own.maximum)) own.maximum = value, own.at = first + e;
  }
  own.sum = 0;
#pragma unroll
  for (int e = 0; e < kPack; ++e) {
    const W value = widen<W>(group.at[e]);
    own.sum += value == own.maximum ? W{1} : exp(value - own.maximum);
  }
  return own;
}

// What all threads of a block found, for its first warp.
template <class W, int kWarps>
__device__ Largest<W> joined_in_block(Largest<W> state, Largest<W> (&warps)[kWarps]) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) state.join(shuffled(state, distance));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = state;
  __syncthreads();
  if (threadIdx.x < 32) {
    state = warps[min(static_cast<int>(threadIdx.x), kWarps - 1)];
#pragma unroll
    for (int distance = kWarps / 2; distance > 0; distance /= 2) state.join(shuffled(state, distance));
  }
  return state;
}

// Of nothing but -inf, or with +inf, that is all there is to add.
template <class W>
__device__ W log_sum_exp(const Largest<W>& found) {
  return isinf(found.maximum) ? found.maximum : found.maximum + log(found.sum);
}

#endif

}  // namespace llmeff::cuda
