// What kernels over lists of arrays share. A launch gets a table of up to kMostTensors tensors by value and has one
// block for each chunk of kChunk elements; the chunks of a tensor follow each other. A thread has four neighbouring
// elements of each tile of a chunk. Sums are in float64: one for each chunk, which a second kernel adds up in a fixed
// order, so that nothing depends on the order in which blocks run. (A block that waited to see whether it is the last
// one of its tensor would be held up by its own stores, for about as long as it works.)
#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda/kernels/rows.cuh"
#include "llmeff/kernels.h"

namespace llmeff::cuda {

inline constexpr int kMostTensors = 256;  // a table is a kernel parameter: less than 32 KB
inline constexpr int kTileThreads = 256, kTile = 4 * kTileThreads;

template <int kArrays, int kMost = kMostTensors>
struct TensorTable {
  static constexpr int kCapacity = kMost;
  int count = 0;
  int first_chunk[kMost + 1] = {0};
  bool aligned[kMost];  // to 16 bytes, in all arrays
  int64_t size[kMost];
  void* array[kArrays][kMost] = {};

  bool full() const { return count == kMost; }
  int chunks() const { return first_chunk[count]; }
  void add(int64_t n, int chunk, const View* const (&views)[kArrays]) {
    size[count] = n;
    aligned[count] = true;
    int k = 0;
    for (const View* v : views) {
      array[k++][count] = v == nullptr ? nullptr : v->data;
      if (v != nullptr && reinterpret_cast<uintptr_t>(v->data) % 16 != 0) aligned[count] = false;
    }
    first_chunk[count + 1] = first_chunk[count] + static_cast<int>(ceil_div(n, chunk));
    ++count;
  }
  void clear() { count = 0; }

#ifdef __CUDACC__
  __device__ int tensor_of(int chunk) const {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first_chunk[middle] <= chunk)
        low = middle;
      else
        high = middle;
    }
    return low;
  }
  template <class T>
  __device__ T* at(int k, int tensor) const {
    return static_cast<T*>(array[k][tensor]);
  }
#endif
};

template <class V>
const View* optional_view(const List<V>& list, int64_t i) {
  return list.size > 0 ? &list[i] : nullptr;
}

// When an update in place must not happen: the factor of the gradients is not finite, or a failure has not been told.
struct StepGuard {
  Guard guard;
  const void* scale;  // may be null
  bool wide;          // the scale is float64

#ifdef __CUDACC__
  __device__ bool open(double& factor) const {
    factor = scale == nullptr ? 1.0
             : wide           ? *static_cast<const double*>(scale)
                              : static_cast<double>(*static_cast<const float*>(scale));
    return isfinite(factor) && !guard.closed();
  }
#endif
};

// body(TypeTag<G>) for the dtype of the gradients of parameters of type T: the same, or with float32 a 16-bit one.
template <class T, class F>
void with_gradients(DType dtype, F&& body) {
  if constexpr (std::is_same_v<T, float>) {
    if (dtype == DType::kBF16) return body(TypeTag<bf16>{});
    if (dtype == DType::kF16) return body(TypeTag<f16>{});
  }
  with_floating(dtype, [&]<class Tag>(Tag tag) {
    if constexpr (std::is_same_v<typename Tag::type, T>)
      body(tag);
    else
      fail("ERR_DTYPE", "[optimizer] the gradients have dtype %d, which doesn't go with that of their parameters.",
           static_cast<int>(dtype));
  });
}

inline StepGuard step_guard(Context& cuda, const In& scale) {
  if (scale.present() && scale.dtype != DType::kF64 && scale.dtype != DType::kF32)
    fail("ERR_DTYPE", "[optimizer] the factor of the gradients must be float32 or float64.");
  return {cuda.guard(), scale.data, scale.dtype == DType::kF64};
}

#ifdef __CUDACC__

// Four neighbouring elements in what is computed with; those outside [0, n) are zeros, and not stored.
template <class T>
__device__ __forceinline__ void load_four(const T* p, int64_t j, int64_t n, bool aligned, wide_t<T> (&x)[4]) {
  using W = wide_t<T>;
  if (aligned && j + 4 <= n) {
    const Group<T, 4> group = load_group<4>(p + j);
#pragma unroll
    for (int e = 0; e < 4; ++e) x[e] = widen<W>(group.at[e]);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) x[e] = j + e < n ? widen<W>(p[j + e]) : W{0};
  }
}
template <class T>
__device__ __forceinline__ void store_four(T* p, int64_t j, int64_t n, bool aligned, const wide_t<T> (&x)[4]) {
  if (aligned && j + 4 <= n) {
    Group<T, 4> group;
#pragma unroll
    for (int e = 0; e < 4; ++e) group.at[e] = narrow<T>(x[e]);
    store_group(p + j, group);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (j + e < n) p[j + e] = narrow<T>(x[e]);
  }
}

// The copy of a parameter, of any floating dtype; null: none.
template <class W>
__device__ __forceinline__ void store_copy(void* copy, DType dtype, int64_t j, int64_t n, bool aligned,
                                           const W (&x)[4]) {
  if (copy == nullptr) return;
  if constexpr (sizeof(W) == 8) {
    if (dtype == DType::kF64) return store_four(static_cast<double*>(copy), j, n, aligned, x);
  }
  const float rounded[4] = {static_cast<float>(x[0]), static_cast<float>(x[1]), static_cast<float>(x[2]),
                            static_cast<float>(x[3])};
  if (dtype == DType::kBF16) return store_four(static_cast<bf16*>(copy), j, n, aligned, rounded);
  if (dtype == DType::kF16) return store_four(static_cast<f16*>(copy), j, n, aligned, rounded);
  store_four(static_cast<float*>(copy), j, n, aligned, rounded);
}

template <class W>
__device__ __forceinline__ void store_copy_of_one(void* copy, DType dtype, int64_t j, W x) {
  if (copy == nullptr) return;
  if (dtype == DType::kBF16)
    static_cast<bf16*>(copy)[j] = narrow<bf16>(x);
  else if (dtype == DType::kF16)
    static_cast<f16*>(copy)[j] = narrow<f16>(x);
  else if (dtype == DType::kF64)
    static_cast<double*>(copy)[j] = static_cast<double>(x);
  else
    static_cast<float*>(copy)[j] = static_cast<float>(x);
}

// Each of x summed over a block of kTileThreads, for thread 0. Once in a kernel.
template <int K>
__device__ __forceinline__ void block_sums(double (&x)[K]) {
  constexpr int kWarps = kTileThreads / 32;
  __shared__ double partial[K][kWarps];
#pragma unroll
  for (int k = 0; k < K; ++k) {
    x[k] = warp_sum(x[k]);
    if (threadIdx.x % 32 == 0) partial[k][threadIdx.x / 32] = x[k];
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    x[k] = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) x[k] += partial[k][warp];
  }
}

// partial[begin, end) added up by a block of 1024 threads, for thread 0; K sums side by side.
template <int K>
__device__ void sum_partials(const double* partial, int64_t begin, int64_t end, double (&x)[K]) {
  for (int k = 0; k < K; ++k) x[k] = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += 1024)
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] += partial[i * K + k];
  row_sums(x);
}

#endif

}  // namespace llmeff::cuda
