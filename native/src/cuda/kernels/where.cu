// where: elements of one of two arrays, as a bool says. T is an unsigned integer of the dtype's size: the elements are
// only moved.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/elements.cuh"

namespace llmeff::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) where_strided_kernel(const __grid_constant__ Walk<4> walk) {
  T values[kStridedItems];
  int32_t to[kStridedItems];
  for_items(walk, [&](int item, const int32_t (&at)[4]) {
    values[item] = walk.as<const uint8_t>(1)[at[1]] != 0 ? walk.as<const T>(2)[at[2]] : walk.as<const T>(3)[at[3]];
    to[item] = at[0];
  });
  for_items(walk, [&](int item, const int32_t (&)[4]) { walk.as<T>(0)[to[item]] = values[item]; });
}

template <class T, int kWidth, int kView>
__device__ __forceinline__ Run<T, kWidth> load_run(const Walk<4>& walk, const int32_t (&at)[4], int valid) {
  const T* const from = walk.as<const T>(kView) + at[kView];
  Run<T, kWidth> run;
  if (walk.broadcast[kView]) {
    const T value = *from;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) run.at[j] = value;
  } else if (valid == kWidth) {
    run = *reinterpret_cast<const Run<T, kWidth>*>(from);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) run.at[j] = j < valid ? from[j] : T(0);
  }
  return run;
}

template <class T>
__global__ void __launch_bounds__(kThreads) where_packs_kernel(const __grid_constant__ Walk<4> walk) {
  constexpr int kWidth = 16 / sizeof(T);
  const uint32_t i = blockIdx.x * static_cast<uint32_t>(kThreads) + threadIdx.x;
  if (i >= walk.count) return;
  int32_t at[4];
  walk.locate(i, at);
  const int valid = walk.rank > 1 ? kWidth : min(kWidth, static_cast<int>(walk.length - i * uint32_t{kWidth}));
  const Run<uint8_t, kWidth> condition = load_run<uint8_t, kWidth, 1>(walk, at, valid);
  const Run<T, kWidth> a = load_run<T, kWidth, 2>(walk, at, valid), b = load_run<T, kWidth, 3>(walk, at, valid);
  Run<T, kWidth> out;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) out.at[j] = condition.at[j] != 0 ? a.at[j] : b.at[j];
  T* const to = walk.as<T>(0) + at[0];
  if (valid == kWidth) {
    *reinterpret_cast<Run<T, kWidth>*>(to) = out;
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      if (j < valid) to[j] = out.at[j];
  }
}

template <class T>
void select(Context& cuda, const View& condition, const View& a, const View& b, const View& out) {
  const Loop<4> loop = make_loop<4>({&out, &condition, &a, &b});
  constexpr int kWidth = 16 / sizeof(T);
  if (has_packs<4>({&out, &condition, &a, &b}, loop, kWidth))
    return for_each_walk<4>({&out, &condition, &a, &b}, loop, kWidth, [&](const Walk<4>& walk) {
      where_packs_kernel<T><<<blocks_for(walk.count, kThreads), kThreads, 0, cuda.stream>>>(walk);
      LLMEFF_LAUNCHED("where_packs_kernel");
    });
  for_each_walk<4>({&out, &condition, &a, &b}, loop, 1, [&](const Walk<4>& walk) {
    where_strided_kernel<T><<<blocks_for(walk.count, kThreads * kStridedItems), kThreads, 0, cuda.stream>>>(walk);
    LLMEFF_LAUNCHED("where_strided_kernel");
  });
}

}  // namespace

void CudaKernels::where(const In& condition, const In& a, const In& b, const Out& out) {
  switch (item_size(out.dtype)) {
    case 8:
      return select<uint64_t>(cuda_, condition, a, b, out);
    case 4:
      return select<uint32_t>(cuda_, condition, a, b, out);
    case 2:
      return select<uint16_t>(cuda_, condition, a, b, out);
    default:
      return select<uint8_t>(cuda_, condition, a, b, out);
  }
}

}  // namespace llmeff::cuda
