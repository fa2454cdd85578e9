// Rows somewhere in memory: what kernels that work along one or several axes walk the other axes by. Unlike a Walk it
// has offsets of 64 bits, of which a row needs one.
#pragma once

#include "cuda/kernels/elements.cuh"

namespace llmeff::cuda {

template <int N>
struct Axes {
  int rank;
  bool narrow;  // counts below 2^31
  int64_t count;
  int64_t shape[kMaxRank];
  Divisor sizes[kMaxRank];
  double inverses[kMaxRank];  // 1 / shape, for counts that are not narrow
  int64_t strides[N][kMaxRank];

  Axes() = default;
  explicit Axes(const Loop<N>& loop) : rank(loop.rank), narrow(loop.count() < (int64_t{1} << 31)), count(loop.count()) {
    for (int axis = 0; axis < rank; ++axis) {
      shape[axis] = loop.shape[axis];
      inverses[axis] = 1.0 / static_cast<double>(loop.shape[axis]);
      if (narrow) sizes[axis] = Divisor(static_cast<uint32_t>(loop.shape[axis]));
      for (int k = 0; k < N; ++k) strides[k][axis] = loop.strides[k][axis];
    }
  }
  int64_t inner() const { return shape[rank - 1]; }
  int64_t inner_stride(int view) const { return strides[view][rank - 1]; }

#ifdef __CUDACC__
  // Through float64, whose quotient is off by one at most.
  __device__ __forceinline__ int64_t divide_wide(int64_t i, int axis) const {
    const int64_t guess = __double2ll_rz(static_cast<double>(i) * inverses[axis]), rest = i - guess * shape[axis];
    return rest < 0 ? guess - 1 : rest >= shape[axis] ? guess + 1 : guess;
  }
  __device__ __forceinline__ void locate(int64_t i, int64_t (&at)[N]) const {
#pragma unroll
    for (int k = 0; k < N; ++k) at[k] = 0;
#pragma unroll 1  // axes are few, and the loop is in every kernel several times
    for (int axis = rank - 1; axis > 0; --axis) {
      const int64_t rest = narrow ? sizes[axis].divide(static_cast<uint32_t>(i)) : divide_wide(i, axis);
      const int64_t index = i - rest * shape[axis];
#pragma unroll
      for (int k = 0; k < N; ++k) at[k] += index * strides[k][axis];
      i = rest;
    }
#pragma unroll
    for (int k = 0; k < N; ++k) at[k] += i * strides[k][0];
  }
#endif
};

inline int64_t power_of_two_from(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

#ifdef __CUDACC__

template <class S>
__device__ __forceinline__ S shuffle_xor(const S& value, int mask) {
  static_assert(sizeof(S) % 4 == 0);
  constexpr int kWords = sizeof(S) / 4;
  uint32_t words[kWords];
  memcpy(words, &value, sizeof(S));
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = __shfl_xor_sync(~0u, words[i], mask);
  S other;
  memcpy(&other, words, sizeof(S));
  return other;
}

#endif

}  // namespace llmeff::cuda
