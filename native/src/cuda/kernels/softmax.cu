// softmax, log-softmax and their gradients over rows:
//   y = e^(x − max) / Σ e^(x − max),   log y = (x − max) − log Σ e^(x − max)
//   dx = y ∘ (dy − Σ y∘dy),            dx = dy − e^y Σ dy
// A row of −inf gives zeros (−inf in the logarithm); a NaN makes its whole row NaN.
//
//   short    rows of at most kLongest elements: a group of threads, up to a block, keeps the row in registers, so that
//   it
//            is read once
//   long     longer ones, and float64: a group reads twice, first for the maximum and the sum together (the sum is
//   scaled
//            when the maximum rises), which the cache makes cheap
// Rows that lie side by side in memory are brought behind each other first. Which threads add which elements depends on
// the length and the dtype alone, so equal rows have equal results in every layout.
#include "cuda/kernels/axes.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/functions.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kMostThreads = 1024, kLongThreads = 512, kSmallBlock = 128;
constexpr int64_t kLongest = int64_t{kMostThreads} * kItems;

// The arrays of a call: x and y, or y, dy and dx.
struct Rows {
  Axes<3> axes;  // of the rows
  void* data[3];
  int64_t strides[3];  // along a row
  int64_t length;
  DType dtype;
  bool logarithm;
  int group;  // threads of a row
};

template <int kView, class T>
__device__ __forceinline__ void load_packs(const Rows& r, int64_t base, int64_t first, int lane, float (&x)[kItems],
                                           float pad) {
  constexpr int kWidth = 16 / sizeof(T);
#pragma unroll
  for (int p = 0; p < kItems / kWidth; ++p) {
    const int64_t e = first + (int64_t{p} * r.group + lane) * kWidth;
    if (e < r.length) {
      const Run<T, kWidth> run =
          *reinterpret_cast<const Run<T, kWidth>*>(static_cast<const T*>(r.data[kView]) + base + e);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x[p * kWidth + j] = widen<float>(run.at[j]);
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x[p * kWidth + j] = pad;
    }
  }
}
template <int kView, class T>
__device__ __forceinline__ void store_packs(const Rows& r, int64_t base, int64_t first, int lane,
                                            const float (&x)[kItems]) {
  constexpr int kWidth = 16 / sizeof(T);
#pragma unroll
  for (int p = 0; p < kItems / kWidth; ++p) {
    const int64_t e = first + (int64_t{p} * r.group + lane) * kWidth;
    Run<T, kWidth> run;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) run.at[j] = narrow<T>(x[p * kWidth + j]);
    if (e < r.length) *reinterpret_cast<Run<T, kWidth>*>(static_cast<T*>(r.data[kView]) + base + e) = run;
  }
}

// Element i of a thread, the same whether rows have packs or not: sums must not depend on the layout.
__device__ __forceinline__ int64_t item_of(const Rows& r, int64_t first, int lane, int i) {
  return first + (r.dtype == DType::kF32   ? (i / 4 * r.group + lane) * 4 + i % 4
                  : r.dtype == DType::kF64 ? i * r.group + lane
                                           : (i / 8 * r.group + lane) * 8 + i % 8);
}

// The kItems elements of a thread in the stretch of a row that begins at `first`: packs of 16 bytes, or single
// elements.
template <int kView, bool kPacks, class W>
__device__ __forceinline__ void load_items(const Rows& r, int64_t base, int64_t first, int lane, W (&x)[kItems],
                                           W pad) {
  if constexpr (kPacks) {
    if (r.dtype == DType::kF32)
      load_packs<kView, float>(r, base, first, lane, x, pad);
    else if (r.dtype == DType::kBF16)
      load_packs<kView, bf16>(r, base, first, lane, x, pad);
    else
      load_packs<kView, f16>(r, base, first, lane, x, pad);
  } else {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int64_t e = item_of(r, first, lane, i);
      x[i] = e < r.length ? load_as<W>(r.dtype, r.data[kView], base + e * r.strides[kView]) : pad;
    }
  }
}
template <int kView, bool kPacks, class W>
__device__ __forceinline__ void store_items(const Rows& r, int64_t base, int64_t first, int lane,
                                            const W (&x)[kItems]) {
  if constexpr (kPacks) {
    if (r.dtype == DType::kF32)
      store_packs<kView, float>(r, base, first, lane, x);
    else if (r.dtype == DType::kBF16)
      store_packs<kView, bf16>(r, base, first, lane, x);
    else
      store_packs<kView, f16>(r, base, first, lane, x);
  } else {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int64_t e = item_of(r, first, lane, i);
      if (e < r.length) store_as<W>(r.dtype, r.data[kView], base + e * r.strides[kView], x[i]);
    }
  }
}

// The same result in all threads of a group, which is a part of a warp or the block. `shared` serves one reduction.
template <class S, class F>
__device__ __forceinline__ S all_reduce(S value, int group, S* shared, const F& fold) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2)
    if (step < group) value = fold(value, shuffle_xor(value, step));
  if (group <= 32) return value;
  const int lane = static_cast<int>(threadIdx.x) % 32, warps = group / 32;
  if (lane == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = shared[lane % warps];  // as powers of two, warps repeat
  for (int step = 1; step < warps; step *= 2) value = fold(value, shuffle_xor(value, step));
  return value;
}

// The maximum is subtracted unless all is −inf.
template <class W>
__device__ __forceinline__ W shift_of(W max) {
  return max == -infinity<W>() ? W(0) : max;
}

// What follows from the sum: the factor of e^(x − max), or what is taken from x − max.
template <class W>
__device__ __forceinline__ W of_sum(double sum, bool logarithm) {
  if (logarithm) return sum == 0 ? W(0) : static_cast<W>(log(sum));
  return sum == 0 ? W(0) : static_cast<W>(1.0 / sum);
}

struct Place {
  int lane;
  bool present;
  int64_t at[3];
};
__device__ __forceinline__ Place place_of(const Rows& r) {
  Place place;
  place.lane = static_cast<int>(threadIdx.x) % r.group;
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / static_cast<unsigned>(r.group)) + threadIdx.x / r.group;
  place.present = row < r.axes.count;
  r.axes.locate(place.present ? row : 0, place.at);
  return place;
}

template <bool kPacks>
__global__ void __launch_bounds__(kMostThreads) softmax_short_kernel(const __grid_constant__ Rows r) {
  __shared__ float maxima[32], sums[32];
  const Place place = place_of(r);
  float x[kItems];
  load_items<0, kPacks>(r, place.at[0], 0, place.lane, x, -infinity<float>());
  float max = x[0];
#pragma unroll
  for (int i = 1; i < kItems; ++i) max = nan_max(x[i], max);
  max = all_reduce(max, r.group, maxima, [](float a, float b) { return nan_max(a, b); });
  const float shift = shift_of(max);
  const auto add = [](float a, float b) { return a + b; };
  float sum = 0;
  if (r.logarithm) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      x[i] -= shift;
      sum += exp(x[i]);
    }
    sum = all_reduce(sum, r.group, sums, add);
    const float log_sum = sum == 0 ? 0.0f : log(sum);
#pragma unroll
    for (int i = 0; i < kItems; ++i) x[i] -= log_sum;
  } else {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      x[i] = exp(x[i] - shift);
      sum += x[i];
    }
    sum = all_reduce(sum, r.group, sums, add);
    const float factor = sum == 0 ? 0.0f : 1.0f / sum;
#pragma unroll
    for (int i = 0; i < kItems; ++i) x[i] *= factor;
  }
  if (place.present) store_items<1, kPacks>(r, place.at[1], 0, place.lane, x);
}

template <bool kPacks>
__global__ void __launch_bounds__(kMostThreads) softmax_grad_short_kernel(const __grid_constant__ Rows r) {
  __shared__ float sums[32];
  const Place place = place_of(r);
  float y[kItems], dy[kItems];
  load_items<0, kPacks>(r, place.at[0], 0, place.lane, y, 0.0f);
  load_items<1, kPacks>(r, place.at[1], 0, place.lane, dy, 0.0f);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kItems; ++i) sum += r.logarithm ? dy[i] : y[i] * dy[i];
  sum = all_reduce(sum, r.group, sums, [](float a, float b) { return a + b; });
#pragma unroll
  for (int i = 0; i < kItems; ++i) dy[i] = r.logarithm ? dy[i] - exp(y[i]) * sum : y[i] * (dy[i] - sum);
  if (place.present) store_items<2, kPacks>(r, place.at[2], 0, place.lane, dy);
}

// The maximum and Σ e^(x − max) of what came so far.
template <class W>
struct Running {
  W max = -infinity<W>();
  double sum = 0;

  __device__ __forceinline__ void raise(W to) {
    if (sum != 0 && shift_of(to) != shift_of(max))
      sum *= static_cast<double>(exp(static_cast<double>(shift_of(max)) - static_cast<double>(shift_of(to))));
    max = to;
  }
  template <int n>
  __device__ __forceinline__ void add(const W (&x)[n]) {
    W highest = max;
#pragma unroll
    for (int i = 0; i < n; ++i) highest = nan_max(x[i], highest);
    raise(highest);
    const W shift = shift_of(max);
    W part = 0;
#pragma unroll
    for (int i = 0; i < n; ++i) part += exp(x[i] - shift);
    sum += static_cast<double>(part);
  }
};

template <class W, bool kPacks>
__global__ void __launch_bounds__(kLongThreads, kPacks ? 2 : 1) softmax_long_kernel(const __grid_constant__ Rows r) {
  __shared__ W maxima[32];
  __shared__ double sums[32];
  const Place place = place_of(r);
  const int64_t stretch = int64_t{r.group} * kItems;
  Running<W> running;
  W x[kItems];
  for (int64_t first = 0; first < r.length; first += stretch) {
    load_items<0, kPacks>(r, place.at[0], first, place.lane, x, -infinity<W>());
    running.add(x);
  }
  running.raise(all_reduce(running.max, r.group, maxima, [](W a, W b) { return nan_max(a, b); }));
  const double sum = all_reduce(running.sum, r.group, sums, [](double a, double b) { return a + b; });
  const W shift = shift_of(running.max), last = of_sum<W>(sum, r.logarithm);
  for (int64_t first = 0; first < r.length; first += stretch) {
    load_items<0, kPacks>(r, place.at[0], first, place.lane, x, -infinity<W>());
#pragma unroll
    for (int i = 0; i < kItems; ++i) x[i] = r.logarithm ? (x[i] - shift) - last : exp(x[i] - shift) * last;
    if (place.present) store_items<1, kPacks>(r, place.at[1], first, place.lane, x);
  }
}

template <class W, bool kPacks>
__global__ void __launch_bounds__(kLongThreads, kPacks ? 2 : 1)
    softmax_grad_long_kernel(const __grid_constant__ Rows r) {
  __shared__ double sums[32];
  const Place place = place_of(r);
  const int64_t stretch = int64_t{r.group} * kItems;
  double sum = 0;
  W y[kItems], dy[kItems];
  for (int64_t first = 0; first < r.length; first += stretch) {
    load_items<0, kPacks>(r, place.at[0], first, place.lane, y, W(0));
    load_items<1, kPacks>(r, place.at[1], first, place.lane, dy, W(0));
    W part = 0;
#pragma unroll
    for (int i = 0; i < kItems; ++i) part += r.logarithm ? dy[i] : y[i] * dy[i];
    sum += static_cast<double>(part);
  }
  const W all = static_cast<W>(all_reduce(sum, r.group, sums, [](double a, double b) { return a + b; }));
  for (int64_t first = 0; first < r.length; first += stretch) {
    load_items<0, kPacks>(r, place.at[0], first, place.lane, y, W(0));
    load_items<1, kPacks>(r, place.at[1], first, place.lane, dy, W(0));
#pragma unroll
    for (int i = 0; i < kItems; ++i) dy[i] = r.logarithm ? dy[i] - exp(y[i]) * all : y[i] * (dy[i] - all);
    if (place.present) store_items<2, kPacks>(r, place.at[2], first, place.lane, dy);
  }
}

// Whether every row of every view is contiguous and whole packs fit; sizes and strides are multiples of them.
bool rows_have_packs(const Rows& r, const Loop<3>& loop, int views, int64_t width) {
  if (r.length % width != 0) return false;
  for (int k = 0; k < views; ++k) {
    if (r.strides[k] != 1 || reinterpret_cast<uintptr_t>(r.data[k]) % 16 != 0) return false;
    for (int axis = 0; axis < loop.rank; ++axis)
      if (loop.shape[axis] > 1 && loop.strides[k][axis] % width != 0) return false;
  }
  return true;
}

// `views` is the number of arrays, of which the last is written.
void launch_rows(Context& cuda, const View& a, const View& b, const View& c, int views, bool logarithm) {
  Rows r = {};
  const View* const arrays[3] = {&a, &b, &c};
  r.length = a.dim(-1);
  r.dtype = a.dtype;
  r.logarithm = logarithm;
  for (int k = 0; k < 3; ++k) {
    r.data[k] = arrays[k]->data;
    r.strides[k] = r.length == 1 ? 1 : arrays[k]->stride(-1);
  }
  const Loop<3> loop = make_loop<3>({&a, &b, &c}, leading_axes(a.rank - 1));
  r.axes = Axes<3>(loop);
  const bool wide = r.dtype == DType::kF64, gradient = views == 3;
  const bool packs = !wide && rows_have_packs(r, loop, views, r.dtype == DType::kF32 ? 4 : 8);
  const bool is_short = !wide && r.length <= kLongest;
  const int64_t threads = ceil_div(r.length, kItems);
  const int64_t most = is_short ? kMostThreads : kLongThreads;
  r.group = static_cast<int>(threads < most ? power_of_two_from(threads) : most);
  const int block = r.group <= 32 ? kSmallBlock : r.group;
  const unsigned blocks = blocks_for(r.axes.count, block / r.group);
  if (is_short) {
    if (gradient) {
      if (packs)
        softmax_grad_short_kernel<true><<<blocks, block, 0, cuda.stream>>>(r);
      else
        softmax_grad_short_kernel<false><<<blocks, block, 0, cuda.stream>>>(r);
    } else {
      if (packs)
        softmax_short_kernel<true><<<blocks, block, 0, cuda.stream>>>(r);
      else
        softmax_short_kernel<false><<<blocks, block, 0, cuda.stream>>>(r);
    }
    LLMEFF_LAUNCHED("softmax_short_kernel");
    return;
  }
  if (gradient) {
    if (wide)
      softmax_grad_long_kernel<double, false><<<blocks, block, 0, cuda.stream>>>(r);
    else if (packs)
      softmax_grad_long_kernel<float, true><<<blocks, block, 0, cuda.stream>>>(r);
    else
      softmax_grad_long_kernel<float, false><<<blocks, block, 0, cuda.stream>>>(r);
  } else {
    if (wide)
      softmax_long_kernel<double, false><<<blocks, block, 0, cuda.stream>>>(r);
    else if (packs)
      softmax_long_kernel<float, true><<<blocks, block, 0, cuda.stream>>>(r);
    else
      softmax_long_kernel<float, false><<<blocks, block, 0, cuda.stream>>>(r);
  }
  LLMEFF_LAUNCHED("softmax_long_kernel");
}

// Whether the rows lie side by side: their elements are further apart than the rows.
bool side_by_side(const View& view) {
  for (int axis = 0; axis < view.rank - 1; ++axis)
    if (view.shape[axis] >= 8 && distance(view.strides[axis]) < distance(view.stride(-1))) return true;
  return false;
}

// A contiguous array of the same shape in memory of the call.
View packed_like(Context& cuda, const View& view) {
  View packed = view;
  packed.data = cuda.scratch_bytes(static_cast<size_t>(view.size() * item_size(view.dtype)));
  int64_t step = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    packed.strides[axis] = step;
    step *= view.shape[axis];
  }
  return packed;
}

// run(views) with rows behind each other.
template <int N, class F>
void with_rows(Context& cuda, CudaKernels& kernels, const View* const (&views)[N], const F& run) {
  View used[N];
  for (int k = 0; k < N; ++k) {
    used[k] = *views[k];
    if (!side_by_side(used[k])) continue;
    used[k] = packed_like(cuda, used[k]);
    if (k < N - 1) kernels.copy(In{*views[k]}, Out{used[k]});
  }
  run(used);
  if (used[N - 1].data != views[N - 1]->data) kernels.copy(In{used[N - 1]}, Out{*views[N - 1]});
}

void forward(Context& cuda, CudaKernels& kernels, const View& x, const View& y, bool logarithm) {
  with_rows<2>(cuda, kernels, {&x, &y},
               [&](const View(&used)[2]) { launch_rows(cuda, used[0], used[1], used[1], 2, logarithm); });
}
void backward(Context& cuda, CudaKernels& kernels, const View& y, const View& dy, const View& dx, bool logarithm) {
  with_rows<3>(cuda, kernels, {&y, &dy, &dx},
               [&](const View(&used)[3]) { launch_rows(cuda, used[0], used[1], used[2], 3, logarithm); });
}

}  // namespace

void CudaKernels::softmax(const In& x, const Out& y) {
  forward(cuda_, *this, x, y, false);
}
void CudaKernels::softmax_grad(const In& y, const In& dy, const Out& dx) {
  backward(cuda_, *this, y, dy, dx, false);
}
void CudaKernels::log_softmax(const In& x, const Out& y) {
  forward(cuda_, *this, x, y, true);
}
void CudaKernels::log_softmax_grad(const In& y, const In& dy, const Out& dx) {
  backward(cuda_, *this, y, dy, dx, true);
}

}  // namespace llmeff::cuda
