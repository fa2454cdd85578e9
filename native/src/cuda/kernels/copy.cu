// copy and fill. Equal dtypes are moved as unsigned integers of their size: whole blocks by the copy engine, which also
// reaches pinned host memory; rows in packs of 16 bytes; a transposition in tiles through shared memory; anything else
// element by element. Different dtypes convert: the floating ones but float64 in packs, the others one by one.
#include "cuda/kernels/convert.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/elements.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kCopyPacks = 4;  // of a thread, 16 bytes each

// A block's worth, such as a number that the host reads: for that the copy engine would be waited for twice.
constexpr int64_t kFewBytes = 4096;

template <class Unit>
__global__ void __launch_bounds__(kThreads) copy_few_kernel(const Unit* from, Unit* to, int units) {
  let_next_begin();
  await_earlier();
  for (int i = static_cast<int>(threadIdx.x); i < units; i += kThreads) to[i] = from[i];
}

void copy_few(Context& cuda, const void* from, void* to, int64_t bytes) {
  const auto launch = [&]<class Unit>(Unit) {
    launch_early(cuda, copy_few_kernel<Unit>, 1, kThreads, 0, static_cast<const Unit*>(from), static_cast<Unit*>(to),
                 static_cast<int>(bytes / static_cast<int64_t>(sizeof(Unit))));
  };
  const auto bits = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) | static_cast<uintptr_t>(bytes);
  if (bits % 16 == 0)
    launch(uint4{});
  else if (bits % 4 == 0)
    launch(uint32_t{});
  else
    launch(uint8_t{});
}

// 16 bytes from the number of bytes that a row has left; `size` of an element.
__global__ void __launch_bounds__(kThreads) copy_packs_kernel(const __grid_constant__ Walk<2> walk, int size) {
  const int width = 16 / size;
  const uint32_t first = blockIdx.x * static_cast<uint32_t>(kThreads * kCopyPacks) + threadIdx.x;
  uint4 values[kCopyPacks];
  int64_t to[kCopyPacks];
#pragma unroll
  for (int p = 0; p < kCopyPacks; ++p) {
    const uint32_t i = first + static_cast<uint32_t>(p * kThreads);
    to[p] = -1;
    if (i >= walk.count) continue;
    int32_t at[2];
    walk.locate(i, at);
    const char* const from = walk.data[1] + int64_t{at[1]} * size;
    const int64_t left = (int64_t{walk.length} - int64_t{i} * width) * size;
    if (walk.rank == 1 && left < 16) {
      for (int64_t byte = 0; byte < left; ++byte) walk.data[0][int64_t{at[0]} * size + byte] = from[byte];
    } else {
      to[p] = int64_t{at[0]} * size;
      values[p] = *reinterpret_cast<const uint4*>(from);
    }
  }
#pragma unroll
  for (int p = 0; p < kCopyPacks; ++p)
    if (to[p] >= 0) *reinterpret_cast<uint4*>(walk.data[0] + to[p]) = values[p];
}

template <class T>
__global__ void __launch_bounds__(kThreads) copy_strided_kernel(const __grid_constant__ Walk<2> walk) {
  T values[kStridedItems];
  int32_t to[kStridedItems];
  for_items(walk, [&](int item, const int32_t (&at)[2]) {
    values[item] = walk.as<const T>(1)[at[1]];
    to[item] = at[0];
  });
  for_items(walk, [&](int item, const int32_t (&)[2]) { walk.as<T>(0)[to[item]] = values[item]; });
}

constexpr int kTile = 64;

// out[…, i, …, j] = x[…], where x is contiguous along i and out along j. `others` are the axes that remain; a block has
// one tile of (i, j).
struct Transposition {
  int64_t rows, columns, out_stride, x_stride;  // along i in out, along j in x
  int64_t row_tiles, column_tiles;
  int rank;
  int64_t shape[kMaxRank], out_strides[kMaxRank], x_strides[kMaxRank];
};

// kPairs: of 16-bit elements, two at a time.
template <class T, bool kPairs>
__global__ void __launch_bounds__(kThreads)
    transpose_kernel(const __grid_constant__ Transposition t, const T* __restrict__ x, T* __restrict__ out) {
  __shared__ alignas(4) T tile[kTile][kTile + (sizeof(T) < 4 ? 4 / sizeof(T) : 1)];
  int64_t block = blockIdx.x;
  const int64_t column = block % t.column_tiles * kTile;
  block /= t.column_tiles;
  const int64_t row = block % t.row_tiles * kTile;
  block /= t.row_tiles;
  for (int axis = t.rank - 1; axis >= 0; --axis) {
    const int64_t index = block % t.shape[axis];
    block /= t.shape[axis];
    x += index * t.x_strides[axis];
    out += index * t.out_strides[axis];
  }
  constexpr int kAtOnce = kPairs ? 2 : 1, kLanes = kTile / kAtOnce, kStep = kThreads / kLanes;
  using Unit = Run<T, kAtOnce>;
  const int lane = static_cast<int>(threadIdx.x) % kLanes * kAtOnce;
#pragma unroll
  for (int k = 0; k < kTile; k += kStep) {
    const int j = k + static_cast<int>(threadIdx.x) / kLanes;
    if (row + lane < t.rows && column + j < t.columns)
      *reinterpret_cast<Unit*>(&tile[j][lane]) =
          *reinterpret_cast<const Unit*>(x + (column + j) * t.x_stride + row + lane);
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kTile; k += kStep) {
    const int i = k + static_cast<int>(threadIdx.x) / kLanes;
    if (row + i >= t.rows || column + lane >= t.columns) continue;
    Unit unit;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) unit.at[j] = tile[lane + j][i];
    *reinterpret_cast<Unit*>(out + (row + i) * t.out_stride + column + lane) = unit;
  }
}

// The axis along which x is contiguous when out is contiguous along another one, its last; else -1.
int transposed_axis(const Loop<2>& loop) {
  if (loop.inner_stride(0) != 1 || loop.inner_stride(1) == 1 || loop.inner() < 8) return -1;
  for (int axis = 0; axis < loop.rank - 1; ++axis)
    if (loop.strides[1][axis] == 1 && loop.shape[axis] >= 8) return axis;
  return -1;
}

template <class T>
void transpose(Context& cuda, const View& x, const View& out, const Loop<2>& loop, int axis) {
  const int last = loop.rank - 1;
  Transposition t = {};
  t.rows = loop.shape[axis], t.columns = loop.shape[last];
  t.out_stride = loop.strides[0][axis], t.x_stride = loop.strides[1][last];
  t.row_tiles = ceil_div(t.rows, kTile), t.column_tiles = ceil_div(t.columns, kTile);
  int64_t blocks = t.row_tiles * t.column_tiles;
  for (int i = 0; i < last; ++i) {
    if (i == axis) continue;
    t.shape[t.rank] = loop.shape[i];
    t.out_strides[t.rank] = loop.strides[0][i];
    t.x_strides[t.rank++] = loop.strides[1][i];
    blocks *= loop.shape[i];
  }
  bool pairs = sizeof(T) == 2 && t.rows % 2 == 0 && t.columns % 2 == 0 && t.out_stride % 2 == 0 &&
               t.x_stride % 2 == 0 && reinterpret_cast<uintptr_t>(x.data) % 4 == 0 &&
               reinterpret_cast<uintptr_t>(out.data) % 4 == 0;
  for (int i = 0; i < t.rank; ++i) pairs &= t.out_strides[i] % 2 == 0 && t.x_strides[i] % 2 == 0;
  const unsigned grid = static_cast<unsigned>(blocks);
  if constexpr (sizeof(T) == 2) {
    if (pairs) transpose_kernel<T, true><<<grid, kThreads, 0, cuda.stream>>>(t, x.as<const T>(), out.as<T>());
  }
  if (!pairs) transpose_kernel<T, false><<<grid, kThreads, 0, cuda.stream>>>(t, x.as<const T>(), out.as<T>());
  LLMEFF_LAUNCHED("transpose_kernel");
}

template <class T>
void move(Context& cuda, const View& x, const View& out, const Loop<2>& loop) {
  if (const int axis = transposed_axis(loop); axis >= 0) return transpose<T>(cuda, x, out, loop, axis);
  for_each_walk<2>({&out, &x}, loop, 1, [&](const Walk<2>& walk) {
    copy_strided_kernel<T><<<blocks_for(walk.count, kThreads * kStridedItems), kThreads, 0, cuda.stream>>>(walk);
    LLMEFF_LAUNCHED("copy_strided_kernel");
  });
}

// Between float32, bfloat16 and float16 in packs of 4 elements.
__global__ void __launch_bounds__(kThreads)
    convert_packs_kernel(const __grid_constant__ Walk<2> walk, DType from, DType to) {
  const Packs<2> packs = find_packs(walk, 4);
  float x[kItems];
  if (from == DType::kF32)
    load_packs<float, 4, 1>(walk, packs, x);
  else if (from == DType::kBF16)
    load_packs<bf16, 4, 1>(walk, packs, x);
  else
    load_packs<f16, 4, 1>(walk, packs, x);
  if (to == DType::kF32)
    store_packs<float, 4, 0>(walk, packs, x);
  else if (to == DType::kBF16)
    store_packs<bf16, 4, 0>(walk, packs, x);
  else
    store_packs<f16, 4, 0>(walk, packs, x);
}

__global__ void __launch_bounds__(kThreads)
    convert_strided_kernel(const __grid_constant__ Walk<2> walk, DType from, DType to) {
  double values[kStridedItems];
  int32_t places[kStridedItems];
  for_items(walk, [&](int item, const int32_t (&at)[2]) {
    values[item] = load_number(from, walk.data[1], at[1]);
    places[item] = at[0];
  });
  for_items(walk, [&](int item, const int32_t (&)[2]) {
    store_number(to, walk.data[0], places[item], values[item], from == DType::kI32);
  });
}

bool is_narrow_floating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

template <class T>
__global__ void __launch_bounds__(kThreads) fill_strided_kernel(const __grid_constant__ Walk<1> walk, T value) {
  for_items(walk, [&](int, const int32_t (&at)[1]) { walk.as<T>(0)[at[0]] = value; });
}

__global__ void __launch_bounds__(kThreads)
    fill_packs_kernel(const __grid_constant__ Walk<1> walk, uint4 value, int size) {
  const uint32_t first = blockIdx.x * static_cast<uint32_t>(kThreads * kCopyPacks) + threadIdx.x;
#pragma unroll
  for (int p = 0; p < kCopyPacks; ++p) {
    const uint32_t i = first + static_cast<uint32_t>(p * kThreads);
    if (i >= walk.count) continue;
    int32_t at[1];
    walk.locate(i, at);
    char* const to = walk.data[0] + int64_t{at[0]} * size;
    const int64_t left = (int64_t{walk.length} - int64_t{i} * (16 / size)) * size;
    if (walk.rank == 1 && left < 16) {
      for (int64_t byte = 0; byte < left; ++byte) to[byte] = reinterpret_cast<const char*>(&value)[byte];
    } else {
      *reinterpret_cast<uint4*>(to) = value;
    }
  }
}

}  // namespace

void CudaKernels::copy(const In& x, const Out& out) {
  const Loop<2> loop = make_loop<2>({&out, &x});
  const int64_t size = item_size(out.dtype);
  if (x.dtype == out.dtype) {
    if (loop.rank == 1 && loop.inner_stride(0) == 1 && loop.inner_stride(1) == 1) {
      const int64_t bytes = loop.count() * size;
      if (bytes <= kFewBytes) return copy_few(cuda_, x.data, out.data, bytes);
      LLMEFF_CUDA(cudaMemcpyAsync(out.data, x.data, static_cast<size_t>(bytes), cudaMemcpyDefault, cuda_.stream));
      return;
    }
    const int width = static_cast<int>(16 / size);
    if (loop.inner_stride(1) == 1 && has_packs<2>({&out, &x}, loop, width))
      return for_each_walk<2>({&out, &x}, loop, width, [&](const Walk<2>& walk) {
        copy_packs_kernel<<<blocks_for(walk.count, kThreads * kCopyPacks), kThreads, 0, cuda_.stream>>>(
            walk, static_cast<int>(size));
        LLMEFF_LAUNCHED("copy_packs_kernel");
      });
    switch (size) {
      case 8:
        return move<uint64_t>(cuda_, x, out, loop);
      case 4:
        return move<uint32_t>(cuda_, x, out, loop);
      case 2:
        return move<uint16_t>(cuda_, x, out, loop);
      default:
        return move<uint8_t>(cuda_, x, out, loop);
    }
  }
  if (is_narrow_floating(x.dtype) && is_narrow_floating(out.dtype) && has_packs<2>({&out, &x}, loop, 4))
    return for_each_walk<2>({&out, &x}, loop, 4, [&](const Walk<2>& walk) {
      convert_packs_kernel<<<blocks_for(walk.count, kThreads * kItems / 4), kThreads, 0, cuda_.stream>>>(walk, x.dtype,
                                                                                                         out.dtype);
      LLMEFF_LAUNCHED("convert_packs_kernel");
    });
  for_each_walk<2>({&out, &x}, loop, 1, [&](const Walk<2>& walk) {
    convert_strided_kernel<<<blocks_for(walk.count, kThreads * kStridedItems), kThreads, 0, cuda_.stream>>>(
        walk, x.dtype, out.dtype);
    LLMEFF_LAUNCHED("convert_strided_kernel");
  });
}

void CudaKernels::fill(double value, const Out& out) {
  const Loop<1> loop = make_loop<1>({&out});
  const int64_t size = item_size(out.dtype);
  const int width = static_cast<int>(16 / size);
  alignas(16) char bytes[16];
  for (int i = 0; i < width; ++i) store_number(out.dtype, bytes, i, value, false);
  if (has_packs<1>({&out}, loop, width)) {
    uint4 pattern;
    __builtin_memcpy(&pattern, bytes, sizeof pattern);
    return for_each_walk<1>({&out}, loop, width, [&](const Walk<1>& walk) {
      fill_packs_kernel<<<blocks_for(walk.count, kThreads * kCopyPacks), kThreads, 0, cuda_.stream>>>(
          walk, pattern, static_cast<int>(size));
      LLMEFF_LAUNCHED("fill_packs_kernel");
    });
  }
  const auto fill_with = [&](auto item) {
    __builtin_memcpy(&item, bytes, sizeof item);
    for_each_walk<1>({&out}, loop, 1, [&](const Walk<1>& walk) {
      fill_strided_kernel<<<blocks_for(walk.count, kThreads * kStridedItems), kThreads, 0, cuda_.stream>>>(walk, item);
      LLMEFF_LAUNCHED("fill_strided_kernel");
    });
  };
  switch (size) {
    case 8:
      return fill_with(uint64_t{});
    case 4:
      return fill_with(uint32_t{});
    case 2:
      return fill_with(uint16_t{});
    default:
      return fill_with(uint8_t{});
  }
}

}  // namespace llmeff::cuda
