// Walking several views of one shape together, for kernels that treat elements alike.
//
// On the host axes are sorted by the strides of the first view, so that neighbouring threads write neighbouring
// elements, and merged where memory allows; what is too large for 32-bit offsets is cut into pieces of one launch each.
// On the GPU a Walk turns the number of an element into its offset in each view.
//
// Two kinds of kernels use it:
//   packs    the innermost axis is contiguous (or broadcast) in every view and whole 16-byte packs fit: a thread has
//            kItems elements in packs that lie a block apart;
//   strided  anything else: a thread has kStridedItems single elements.
#pragma once

#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/kernels/dtypes.cuh"

namespace llmeff::cuda {

inline constexpr int kThreads = 256;
inline constexpr int kItems = 16;        // elements of a thread of a kernel of packs
inline constexpr int kStridedItems = 4;  // and of a strided one

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int64_t distance(int64_t stride) {
  return stride < 0 ? -stride : stride;
}
// Bit set of the first `count` axes.
constexpr unsigned leading_axes(int count) {
  return (1u << count) - 1u;
}

// Division of n < 2^31 by a constant of the launch, as a multiplication (Granlund and Montgomery 1994).
struct Divisor {
  uint32_t divisor, magic, shift;

  Divisor() = default;
  explicit Divisor(uint32_t d) : divisor(d), shift(0) {
    while ((uint64_t{1} << shift) < d) ++shift;
    magic = static_cast<uint32_t>((((uint64_t{1} << shift) - d) << 32) / d + 1);
  }
#ifdef __CUDACC__
  __device__ __forceinline__ uint32_t divide(uint32_t n) const { return (__umulhi(n, magic) + n) >> shift; }
#endif
};

template <int N>
struct Loop {
  int rank = 0;  // at least 1 once made
  int64_t shape[kMaxRank] = {};
  int64_t strides[N][kMaxRank] = {};

  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  int64_t inner() const { return shape[rank - 1]; }
  int64_t inner_stride(int view) const { return strides[view][rank - 1]; }
};

enum class Order { kAny, kRowMajor };

// The loop over those axes (a bit set) of the views; their sizes are those of views[0].
template <int N>
Loop<N> make_loop(const View* const (&views)[N], unsigned axes = ~0u, Order order = Order::kAny) {
  int chosen[kMaxRank], count = 0;
  for (int axis = 0; axis < views[0]->rank; ++axis) {
    if (!(axes >> axis & 1u) || views[0]->shape[axis] == 1) continue;
    int at = count++;
    const auto lies_inside = [&](int other) {
      for (int k = 0; k < N; ++k) {
        const int64_t a = distance(views[k]->strides[axis]), b = distance(views[k]->strides[other]);
        if (a != b) return a < b;
      }
      return true;
    };
    for (; order == Order::kAny && at > 0 && !lies_inside(chosen[at - 1]); --at) chosen[at] = chosen[at - 1];
    chosen[at] = axis;
  }
  Loop<N> loop;
  for (int i = 0; i < count; ++i) {
    const int axis = chosen[i];
    const int64_t size = views[0]->shape[axis];
    bool merge = loop.rank > 0;
    for (int k = 0; k < N && merge; ++k) merge = loop.strides[k][loop.rank - 1] == size * views[k]->strides[axis];
    if (!merge) loop.shape[loop.rank++] = 1;
    loop.shape[loop.rank - 1] *= size;
    for (int k = 0; k < N; ++k) loop.strides[k][loop.rank - 1] = views[k]->strides[axis];
  }
  if (loop.rank == 0) {
    loop.rank = 1;
    loop.shape[0] = 1;
    for (int k = 0; k < N; ++k) loop.strides[k][0] = 1;
  }
  return loop;
}

// What a kernel walks by: offsets in elements, of a piece whose counts and offsets fit into 31 bits.
template <int N>
struct Walk {
  char* data[N];
  uint32_t count;   // of elements, or packs
  uint32_t length;  // of elements of a contiguous piece, whose last pack may be cut
  int rank;
  Divisor sizes[kMaxRank];
  int32_t strides[N][kMaxRank];
  bool broadcast[N];  // along the innermost axis

#ifdef __CUDACC__
  __device__ __forceinline__ void locate(uint32_t i, int32_t (&at)[N]) const {
#pragma unroll
    for (int k = 0; k < N; ++k) at[k] = 0;
#pragma unroll 1  // axes are few, and the loop is in every kernel several times
    for (int axis = rank - 1; axis > 0; --axis) {
      const uint32_t rest = sizes[axis].divide(i), index = i - rest * sizes[axis].divisor;
#pragma unroll
      for (int k = 0; k < N; ++k) at[k] += static_cast<int32_t>(index) * strides[k][axis];
      i = rest;
    }
#pragma unroll
    for (int k = 0; k < N; ++k) at[k] += static_cast<int32_t>(i) * strides[k][0];
  }
  template <class T>
  __device__ __forceinline__ T* as(int view) const {
    return reinterpret_cast<T*>(data[view]);
  }
#endif
};

// body(piece, offsets) for pieces of the loop that have offsets of at most 31 bits, in row-major order if so ordered.
template <int N, class F>
void for_each_piece(const Loop<N>& loop, const int64_t (&offsets)[N], Order order, const F& body) {
  constexpr int64_t kMost = int64_t{1} << 30, kGranule = int64_t{1} << 20;
  int widest = 0;
  int64_t reach = 0, total[N] = {};
  for (int axis = 0; axis < loop.rank; ++axis) {
    for (int k = 0; k < N; ++k) {
      const int64_t extent = (loop.shape[axis] - 1) * distance(loop.strides[k][axis]);
      total[k] += extent;
      if (extent > reach) reach = extent, widest = axis;
    }
  }
  if (order == Order::kRowMajor)
    for (widest = 0; widest < loop.rank - 1 && loop.shape[widest] == 1;) ++widest;
  bool fits = loop.count() <= kMost;
  for (int k = 0; k < N; ++k) fits &= total[k] <= kMost;
  if (fits) return body(loop, offsets);
  Loop<N> low = loop, high = loop;
  int64_t half = loop.shape[widest] / 2;
  if (widest == loop.rank - 1 && half > kGranule) half = half / kGranule * kGranule;
  low.shape[widest] = half;
  high.shape[widest] -= half;
  int64_t high_offsets[N];
  for (int k = 0; k < N; ++k) high_offsets[k] = offsets[k] + half * loop.strides[k][widest];
  for_each_piece(low, offsets, order, body);
  for_each_piece(high, high_offsets, order, body);
}

// launch(walk) for walks over all elements of the views in packs of `width` elements (1: single elements).
template <int N, class F>
void for_each_walk(const View* const (&views)[N], const Loop<N>& loop, int width, const F& launch,
                   Order order = Order::kAny) {
  const int64_t start[N] = {};
  for_each_piece(loop, start, order, [&](const Loop<N>& piece, const int64_t (&offsets)[N]) {
    Walk<N> walk;
    walk.rank = piece.rank;
    walk.length = static_cast<uint32_t>(piece.count());
    walk.count = static_cast<uint32_t>(piece.count() / piece.inner() * ceil_div(piece.inner(), width));
    for (int k = 0; k < N; ++k) {
      walk.data[k] = views[k]->template as<char>() + offsets[k] * item_size(views[k]->dtype);
      walk.broadcast[k] = piece.inner_stride(k) == 0;
    }
    for (int axis = 0; axis < piece.rank; ++axis) {
      const bool inner = axis == piece.rank - 1;
      walk.sizes[axis] = Divisor(static_cast<uint32_t>(ceil_div(piece.shape[axis], inner ? width : 1)));
      for (int k = 0; k < N; ++k)
        walk.strides[k][axis] = static_cast<int32_t>(piece.strides[k][axis] * (inner ? width : 1));
    }
    launch(walk);
  });
}

// Whether packs of `width` elements can be read and written whole: the innermost axis is contiguous or broadcast, and
// every row starts at a multiple of the pack. The last pack of a loop that is one row may be cut.
template <int N>
bool has_packs(const View* const (&views)[N], const Loop<N>& loop, int64_t width) {
  if (loop.inner_stride(0) != 1 || (loop.rank > 1 && loop.inner() % width != 0)) return false;
  for (int k = 0; k < N; ++k) {
    if (loop.inner_stride(k) == 0) continue;
    if (loop.inner_stride(k) != 1) return false;
    for (int axis = 0; axis < loop.rank - 1; ++axis)
      if (loop.strides[k][axis] % width != 0) return false;
    if (reinterpret_cast<uintptr_t>(views[k]->data) % static_cast<uintptr_t>(width * item_size(views[k]->dtype)) != 0)
      return false;
  }
  return true;
}

inline unsigned blocks_for(int64_t count, int64_t per_block) {
  return static_cast<unsigned>(ceil_div(count, per_block));
}

#ifdef __CUDACC__

// kWidth elements that are loaded and stored at once.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth < 16 ? sizeof(T) * kWidth : 16) Run {
  T at[kWidth];
};

// The packs of a thread: kItems / width of them, in blocks' distance.
template <int N>
struct Packs {
  static constexpr int kMost = kItems / 4;
  int32_t at[kMost][N];
  int valid[kMost];  // elements of the pack; 0 past the end
};
template <int N>
__device__ __forceinline__ Packs<N> find_packs(const Walk<N>& walk, int width, int count) {
  Packs<N> packs;
  const uint32_t first = blockIdx.x * static_cast<uint32_t>(kThreads * count) + threadIdx.x;
#pragma unroll
  for (int p = 0; p < Packs<N>::kMost; ++p) {
    const uint32_t i = first + static_cast<uint32_t>(p * kThreads);
    packs.valid[p] = 0;
#pragma unroll
    for (int k = 0; k < N; ++k) packs.at[p][k] = 0;
    if (p < count && i < walk.count) {
      walk.locate(i, packs.at[p]);
      packs.valid[p] =
          walk.rank > 1 ? width : min(width, static_cast<int>(walk.length - i * static_cast<uint32_t>(width)));
    }
  }
  return packs;
}

template <int N>
__device__ __forceinline__ Packs<N> find_packs(const Walk<N>& walk, int width) {
  return find_packs(walk, width, kItems / width);
}

template <class T, int kWidth, int kView, class W, int N>
__device__ __forceinline__ void load_packs(const Walk<N>& walk, const Packs<N>& packs, W (&x)[kItems]) {
#pragma unroll
  for (int p = 0; p < kItems / kWidth; ++p) {
    const T* const from = walk.template as<const T>(kView) + packs.at[p][kView];
    if (walk.broadcast[kView]) {
      const W value = packs.valid[p] > 0 ? widen<W>(*from) : W(0);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x[p * kWidth + j] = value;
    } else if (packs.valid[p] == kWidth) {
      const Run<T, kWidth> run = *reinterpret_cast<const Run<T, kWidth>*>(from);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x[p * kWidth + j] = widen<W>(run.at[j]);
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x[p * kWidth + j] = j < packs.valid[p] ? widen<W>(from[j]) : W(0);
    }
  }
}
template <class T, int kWidth, int kView, class W, int N>
__device__ __forceinline__ void store_packs(const Walk<N>& walk, const Packs<N>& packs, const W (&x)[kItems]) {
#pragma unroll
  for (int p = 0; p < kItems / kWidth; ++p) {
    T* const to = walk.template as<T>(kView) + packs.at[p][kView];
    if (packs.valid[p] == kWidth) {
      Run<T, kWidth> run;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) run.at[j] = narrow<T>(x[p * kWidth + j]);
      *reinterpret_cast<Run<T, kWidth>*>(to) = run;
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        if (j < packs.valid[p]) to[j] = narrow<T>(x[p * kWidth + j]);
    }
  }
}

// A pack as it lies in memory, of numbers of the size of T.
template <class T, int kView, int N>
__device__ __forceinline__ uint4 load_raw(const Walk<N>& walk, int32_t at, int valid) {
  constexpr int kWidth = 16 / sizeof(T);
  const T* const from = walk.template as<const T>(kView) + at;
  Run<T, kWidth> run;
  if (valid == kWidth && !walk.broadcast[kView]) {
    run = *reinterpret_cast<const Run<T, kWidth>*>(from);
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) run.at[j] = j < valid ? from[walk.broadcast[kView] ? 0 : j] : T(0);
  }
  uint4 raw;
  memcpy(&raw, &run, sizeof raw);
  return raw;
}
// The numbers of a pack, widened.
template <class T>
__device__ __forceinline__ void unpack(const uint4& raw, float* x) {
  Run<T, 16 / sizeof(T)> run;
  memcpy(&run, &raw, sizeof raw);
#pragma unroll
  for (int j = 0; j < static_cast<int>(16 / sizeof(T)); ++j) x[j] = widen<float>(run.at[j]);
}
// 16 numbers: four packs of float32, two of the 16-bit formats.
__device__ __forceinline__ void unpack(DType dtype, const uint4 (&raw)[4], float (&x)[kItems]) {
  if (dtype == DType::kF32) {
#pragma unroll
    for (int p = 0; p < 4; ++p) unpack<float>(raw[p], x + 4 * p);
  } else if (dtype == DType::kBF16) {
    unpack<bf16>(raw[0], x), unpack<bf16>(raw[1], x + 8);
  } else {
    unpack<f16>(raw[0], x), unpack<f16>(raw[1], x + 8);
  }
}

// Numbers of the dtypes that are computed in float32, as the launch says which; packs of 16 bytes.
__device__ __forceinline__ int pack_width(DType dtype) {
  return dtype == DType::kF32 ? 4 : 8;
}
template <int kView, int N>
__device__ __forceinline__ void load_packs(DType dtype, const Walk<N>& walk, const Packs<N>& packs,
                                           float (&x)[kItems]) {
  if (dtype == DType::kF32)
    load_packs<float, 4, kView>(walk, packs, x);
  else if (dtype == DType::kBF16)
    load_packs<bf16, 8, kView>(walk, packs, x);
  else
    load_packs<f16, 8, kView>(walk, packs, x);
}
template <int kView, int N>
__device__ __forceinline__ void store_packs(DType dtype, const Walk<N>& walk, const Packs<N>& packs,
                                            const float (&x)[kItems]) {
  if (dtype == DType::kF32)
    store_packs<float, 4, kView>(walk, packs, x);
  else if (dtype == DType::kBF16)
    store_packs<bf16, 8, kView>(walk, packs, x);
  else
    store_packs<f16, 8, kView>(walk, packs, x);
}

// One number of a dtype that is computed in W: float32 of the floating ones but float64, which is double; int32 of the
// integers and bool.
template <class W>
__device__ __forceinline__ W load_as(DType dtype, const void* data, int64_t at) {
  if constexpr (__is_same(W, double)) {
    return static_cast<const double*>(data)[at];
  } else if constexpr (__is_same(W, int32_t)) {
    return dtype == DType::kI32 ? static_cast<const int32_t*>(data)[at] : static_cast<const uint8_t*>(data)[at];
  } else {
    if (dtype == DType::kF32) return static_cast<const float*>(data)[at];
    if (dtype == DType::kBF16) return __bfloat162float(static_cast<const bf16*>(data)[at]);
    return __half2float(static_cast<const f16*>(data)[at]);
  }
}
template <class W>
__device__ __forceinline__ void store_as(DType dtype, void* data, int64_t at, W value) {
  if constexpr (__is_same(W, double)) {
    static_cast<double*>(data)[at] = value;
  } else if constexpr (__is_same(W, int32_t)) {
    if (dtype == DType::kI32)
      static_cast<int32_t*>(data)[at] = value;
    else
      static_cast<uint8_t*>(data)[at] = static_cast<uint8_t>(value);
  } else {
    if (dtype == DType::kF32)
      static_cast<float*>(data)[at] = value;
    else if (dtype == DType::kBF16)
      static_cast<bf16*>(data)[at] = __float2bfloat16_rn(value);
    else
      static_cast<f16*>(data)[at] = __float2half_rn(value);
  }
}

// Four elements that lie together, in as many bytes.
template <class T, class W>
__device__ __forceinline__ void load_four(const void* data, int64_t at, W (&x)[4]) {
  const Run<T, 4> run = *reinterpret_cast<const Run<T, 4>*>(static_cast<const T*>(data) + at);
#pragma unroll
  for (int j = 0; j < 4; ++j) x[j] = widen<W>(run.at[j]);
}
template <class T, class W>
__device__ __forceinline__ void store_four(void* data, int64_t at, const W (&x)[4]) {
  Run<T, 4> run;
#pragma unroll
  for (int j = 0; j < 4; ++j) run.at[j] = narrow<T>(x[j]);
  *reinterpret_cast<Run<T, 4>*>(static_cast<T*>(data) + at) = run;
}
template <class W>
__device__ __forceinline__ void load_four(DType dtype, const void* data, int64_t at, W (&x)[4]) {
  if constexpr (__is_same(W, double))
    load_four<double>(data, at, x);
  else if constexpr (__is_same(W, int32_t))
    load_four<int32_t>(data, at, x);
  else if (dtype == DType::kF32)
    load_four<float>(data, at, x);
  else if (dtype == DType::kBF16)
    load_four<bf16>(data, at, x);
  else
    load_four<f16>(data, at, x);
}
template <class W>
__device__ __forceinline__ void store_four(DType dtype, void* data, int64_t at, const W (&x)[4]) {
  if constexpr (__is_same(W, double))
    store_four<double>(data, at, x);
  else if constexpr (__is_same(W, int32_t))
    store_four<int32_t>(data, at, x);
  else if (dtype == DType::kF32)
    store_four<float>(data, at, x);
  else if (dtype == DType::kBF16)
    store_four<bf16>(data, at, x);
  else
    store_four<f16>(data, at, x);
}

// The numbers of a thread's single elements, a block apart; element(item, offsets).
template <int N, class F>
__device__ __forceinline__ void for_items(const Walk<N>& walk, const F& element) {
  const uint32_t first = blockIdx.x * static_cast<uint32_t>(kThreads * kStridedItems) + threadIdx.x;
#pragma unroll
  for (int item = 0; item < kStridedItems; ++item) {
    const uint32_t i = first + static_cast<uint32_t>(item * kThreads);
    if (i >= walk.count) continue;
    int32_t at[N];
    walk.locate(i, at);
    element(item, at);
  }
}

#endif

}  // namespace llmeff::cuda
