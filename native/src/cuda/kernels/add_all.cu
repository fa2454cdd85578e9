// Sums of many arrays: the contributions to a gradient, in one pass over memory.
#include <algorithm>

#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/dtypes.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kMost = 8;  // arrays of one launch
constexpr int kBlock = 256;

struct Sources {
  const void* data[kMost];
  DType dtype[kMost];
  int64_t strides[kMost][kMaxRank];
  int count;
};

// All contiguous and of one dtype: 16 bytes at a time, the last ones singly.
template <class T>
__global__ void add_packs_kernel(Sources xs, T* out, int64_t size) {
  using W = wide_t<T>;
  constexpr int kSize = Pack<T>::kSize;
  const int64_t step = int64_t{gridDim.x} * kBlock, first = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  const int64_t packs = size / kSize;
  for (int64_t i = first; i < packs; i += step) {
    W sum[kSize];
    for (int k = 0; k < xs.count; ++k) {
      const Pack<T> x = static_cast<const Pack<T>*>(xs.data[k])[i];
#pragma unroll
      for (int e = 0; e < kSize; ++e) sum[e] = k == 0 ? widen<W>(x.at[e]) : sum[e] + widen<W>(x.at[e]);
    }
    Pack<T> y;
#pragma unroll
    for (int e = 0; e < kSize; ++e) y.at[e] = narrow<T>(sum[e]);
    reinterpret_cast<Pack<T>*>(out)[i] = y;
  }
  for (int64_t i = packs * kSize + first; i < size; i += step) {
    W sum = widen<W>(static_cast<const T*>(xs.data[0])[i]);
    for (int k = 1; k < xs.count; ++k) sum += widen<W>(static_cast<const T*>(xs.data[k])[i]);
    out[i] = narrow<T>(sum);
  }
}

template <class W>
__device__ W load_as(const void* data, DType dtype, int64_t at) {
  switch (dtype) {
    case DType::kF64:
      return static_cast<W>(static_cast<const double*>(data)[at]);
    case DType::kBF16:
      return widen<W>(static_cast<const bf16*>(data)[at]);
    case DType::kF16:
      return widen<W>(static_cast<const f16*>(data)[at]);
    default:
      return static_cast<W>(static_cast<const float*>(data)[at]);
  }
}

struct Shape {
  int rank;
  int64_t at[kMaxRank];
};

template <class T>
__global__ void add_strided_kernel(Sources xs, Shape shape, T* out, int64_t size) {
  using W = wide_t<T>;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < size; i += step) {
    W sum = 0;
    for (int k = 0; k < xs.count; ++k) {
      int64_t rest = i, offset = 0;
      for (int axis = shape.rank - 1; axis >= 0; --axis) {
        offset += rest % shape.at[axis] * xs.strides[k][axis];
        rest /= shape.at[axis];
      }
      const W x = load_as<W>(xs.data[k], xs.dtype[k], offset);
      sum = k == 0 ? x : sum + x;
    }
    out[i] = narrow<T>(sum);
  }
}

bool is_contiguous(const View& v) {
  int64_t step = 1;
  for (int axis = v.rank - 1; axis >= 0; --axis) {
    if (v.shape[axis] != 1 && v.strides[axis] != step) return false;
    step *= v.shape[axis];
  }
  return reinterpret_cast<uintptr_t>(v.data) % 16 == 0;
}

}  // namespace

void CudaKernels::add_all(const List<In>& xs, const Out& out) {
  const int64_t size = out.size();
  // More arrays than a launch takes go through a wide partial sum.
  const DType wide = out.dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  View partial = out;
  partial.dtype = wide;
  if (xs.size > kMost) partial.data = cuda_.scratch_bytes(static_cast<size_t>(size * item_size(wide)));
  for (int64_t first = 0; first < xs.size;) {
    Sources sources{};
    const auto add = [&](const View& x) {
      sources.data[sources.count] = x.data;
      sources.dtype[sources.count] = x.dtype;
      std::copy(x.strides, x.strides + x.rank, sources.strides[sources.count++]);
    };
    bool packs = is_contiguous(out);
    if (first > 0) add(partial);
    for (; first < xs.size && sources.count < kMost; ++first) {
      packs = packs && is_contiguous(xs[first]) && xs[first].dtype == out.dtype;
      add(xs[first]);
    }
    const View& to = first < xs.size ? partial : static_cast<const View&>(out);
    packs = packs && sources.dtype[0] == to.dtype && to.dtype == out.dtype;
    Shape shape{out.rank, {}};
    std::copy(out.shape, out.shape + out.rank, shape.at);
    with_floating(to.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const int64_t threads = packs ? (size + Pack<T>::kSize - 1) / Pack<T>::kSize : size;
      const auto blocks =
          static_cast<unsigned>(std::min<int64_t>((threads + kBlock - 1) / kBlock, 32 * cuda_.facts.multiprocessors));
      if (packs)
        add_packs_kernel<T><<<blocks, kBlock, 0, cuda_.stream>>>(sources, to.as<T>(), size);
      else
        add_strided_kernel<T><<<blocks, kBlock, 0, cuda_.stream>>>(sources, shape, to.as<T>(), size);
      LLMEFF_LAUNCHED("add_all");
    });
  }
}

}  // namespace llmeff::cuda
