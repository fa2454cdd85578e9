// What kernels over rows share: where a row lies in memory, several elements moved at once, and sums over the threads
// of a row.
//
// A row belongs to blockDim.x threads, a multiple of 32. With one warp a row a block has blockDim.y rows and no need
// for barriers; wider rows have a block each.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "cuda/check.h"
#include "cuda/kernels/dtypes.cuh"
#include "llmeff/view.h"

namespace llmeff::cuda {

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}

// Offsets of the rows of a view, numbered row-major over its leading axes, of which neighbours are joined where the
// strides allow it: most arrays have one.
struct RowMap {
  int rank = 1;
  int64_t shape[kMaxRank] = {1};
  int64_t strides[kMaxRank] = {0};

#ifdef __CUDACC__
  __device__ int64_t operator()(int64_t row) const {
    int64_t offset = 0;
    for (int axis = rank - 1; axis > 0; --axis) {
      const int64_t above = (row | shape[axis]) >> 32 == 0
                                ? static_cast<uint32_t>(row) / static_cast<uint32_t>(shape[axis])
                                : row / shape[axis];
      offset += (row - above * shape[axis]) * strides[axis];
      row = above;
    }
    return offset + row * strides[0];
  }
#endif
};

inline RowMap row_map(const View& view) {
  RowMap map;
  int rank = 0;
  for (int axis = 0; axis + 1 < view.rank; ++axis) {
    if (view.shape[axis] == 1) continue;
    if (rank > 0 && map.strides[rank - 1] == view.shape[axis] * view.strides[axis]) {
      map.shape[rank - 1] *= view.shape[axis];
      map.strides[rank - 1] = view.strides[axis];
    } else {
      map.shape[rank] = view.shape[axis];
      map.strides[rank] = view.strides[axis];
      ++rank;
    }
  }
  if (rank > 0) map.rank = rank;
  return map;
}

inline int64_t count_rows(const View& view) {
  int64_t rows = 1;
  for (int axis = 0; axis + 1 < view.rank; ++axis) rows *= view.shape[axis];
  return rows;
}

// Whether 16 bytes may be moved at once from every multiple of 16 bytes in every row. Absent views don't object.
inline bool rows_aligned(std::initializer_list<const View*> views) {
  for (const View* v : views) {
    if (!v->present()) continue;
    const int64_t bytes = item_size(v->dtype);
    if (reinterpret_cast<uintptr_t>(v->data) % 16 != 0) return false;
    if (v->rank > 0 && v->dim(-1) * bytes % 16 != 0) return false;
    for (int axis = 0; axis + 1 < v->rank; ++axis)
      if (v->shape[axis] > 1 && v->strides[axis] * bytes % 16 != 0) return false;
  }
  return true;
}

// N elements, moved at once where that is at most 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Group {
  T at[N];
};

#ifdef __CUDACC__

template <int N, class T>
__device__ __forceinline__ Group<T, N> load_group(const T* p) {
  return *reinterpret_cast<const Group<T, N>*>(p);
}
template <int N, class T>
__device__ __forceinline__ void store_group(T* p, const Group<T, N>& group) {
  *reinterpret_cast<Group<T, N>*>(p) = group;
}

template <class W>
__device__ __forceinline__ W warp_sum(W x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
  return x;
}

// Each of x summed over the threads of the row, for all of them; the order of the additions depends on blockDim.x
// alone.
template <class W, int K>
__device__ void row_sums(W (&x)[K]) {
#pragma unroll
  for (int k = 0; k < K; ++k) x[k] = warp_sum(x[k]);
  if (blockDim.x == 32) return;
  __shared__ W partial[K][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K; ++k)
    if (lane == 0) partial[k][warp] = x[k];
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K; ++k) x[k] = warp_sum(lane < warps ? partial[k][lane] : W{0});
}

#endif

}  // namespace llmeff::cuda
