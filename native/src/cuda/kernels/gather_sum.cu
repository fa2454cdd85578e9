// Sums of rows by number, out[n] = Σ_j w[n, j] · x[ids[n, j]], a thread 16 bytes of it; and the gradient of the
// weights, a warp each.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// The rows of x that a list of ids [N, k] names.
struct NamedRows {
  const void* x;
  int64_t rows, row_stride;
  const int32_t* ids;
  int64_t terms, id_row, id_column;
  ValueCheck check;

  // -1: none. What is no row is told, and none.
  __device__ int64_t id(int64_t n, int64_t j) const {
    const int32_t id = ids[n * id_row + j * id_column];
    if (id >= -1 && id < rows) return id;
    check.bad(n * terms + j, id);
    return -1;
  }
};

NamedRows named_rows(Context& cuda, const View& x, const View& ids) {
  const int64_t rows = x.shape[0];
  const ValueCheck check = cuda.check_values([=](int64_t position, int32_t id) {
    return formatted("[gatherSum] id %d at position %lld is neither -1 nor one of the %lld rows", id,
                     static_cast<long long>(position), static_cast<long long>(rows));
  });
  return {x.data, rows, x.strides[0], ids.as<const int32_t>(), ids.shape[1], ids.strides[0], ids.strides[1], check};
}

// Weights [N, k] of rows of T: of that dtype or of wide_t<T>; null: all 1.
struct Weights {
  void* data;
  bool wide;
  int64_t row, column;

  Weights(const View& x, DType rows) : data(x.data), wide(x.dtype != rows), row(x.strides[0]), column(x.strides[1]) {}

  template <class T>
  __device__ wide_t<T> get(int64_t n, int64_t j) const {
    if (data == nullptr) return 1;
    const int64_t at = n * row + j * column;
    return wide ? static_cast<const wide_t<T>*>(data)[at] : widen<wide_t<T>>(static_cast<const T*>(data)[at]);
  }
  template <class T>
  __device__ void set(int64_t n, int64_t j, wide_t<T> weight) const {
    const int64_t at = n * row + j * column;
    if (wide)
      static_cast<wide_t<T>*>(data)[at] = weight;
    else
      static_cast<T*>(data)[at] = narrow<T>(weight);
  }
};

// Units are kPack elements.
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    gather_sum_kernel(const __grid_constant__ NamedRows named, const __grid_constant__ Weights weights, T* out,
                      int64_t out_row, uint32_t units_per_row, int64_t units) {
  using W = wide_t<T>;
  const int64_t unit = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (unit >= units) return;
  const int64_t n = units <= UINT32_MAX ? static_cast<uint32_t>(unit) / units_per_row : unit / units_per_row;
  const int64_t c = (unit - n * units_per_row) * kPack;
  W sum[kPack] = {};
  for (int64_t j = 0; j < named.terms; ++j) {
    const int64_t id = named.id(n, j);
    if (id < 0) continue;
    const W weight = weights.get<T>(n, j);
    const auto x = load_group<kPack>(static_cast<const T*>(named.x) + id * named.row_stride + c);
#pragma unroll
    for (int e = 0; e < kPack; ++e) sum[e] += weight * widen<W>(x.at[e]);
  }
  Group<T, kPack> rounded;
#pragma unroll
  for (int e = 0; e < kPack; ++e) rounded.at[e] = narrow<T>(sum[e]);
  store_group(out + n * out_row + c, rounded);
}

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    gather_sum_grad_kernel(const __grid_constant__ NamedRows named, const T* dout, int64_t dout_row,
                           const __grid_constant__ Weights dweights, int64_t width, int64_t count) {
  using W = wide_t<T>;
  const int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (i >= count) return;  // the whole warp
  const int64_t n = i / named.terms, j = i - n * named.terms;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t id = named.id(n, j);
  W sum = 0;
  for (int64_t c = lane * kPack; id >= 0 && c < width; c += 32 * kPack) {
    const auto x = load_group<kPack>(static_cast<const T*>(named.x) + id * named.row_stride + c);
    const auto d = load_group<kPack>(dout + n * dout_row + c);
#pragma unroll
    for (int e = 0; e < kPack; ++e) sum += widen<W>(x.at[e]) * widen<W>(d.at[e]);
  }
  sum = warp_sum(sum);
  if (lane == 0) dweights.set<T>(n, j, sum);
}

// launch.operator()<T, kPack>() with the widest pack that rows of these views allow.
template <class F>
void with_packs(const View& x, const View& other, F&& launch) {
  with_floating(x.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    if (rows_aligned({&x, &other})) return launch.template operator()<T, Pack<T>::kSize>();
    launch.template operator()<T, 1>();
  });
}

}  // namespace

void CudaKernels::gather_sum(const In& x, const In& ids, const In& weights, const Out& out) {
  const NamedRows named = named_rows(cuda_, x, ids);
  with_packs(x, out, [&]<class T, int kPack>() {
    const int64_t units = out.size() / kPack;
    gather_sum_kernel<T, kPack><<<ceil_div(units, kThreads), kThreads, 0, cuda_.stream>>>(
        named, Weights(weights, x.dtype), out.as<T>(), out.strides[0], static_cast<uint32_t>(out.dim(1) / kPack),
        units);
    LLMEFF_LAUNCHED("gather_sum_kernel");
  });
}

void CudaKernels::gather_sum_grad(const In& x, const In& ids, const In& dout, const Out& dweights) {
  const NamedRows named = named_rows(cuda_, x, ids);
  const int64_t count = ids.size();
  with_packs(x, dout, [&]<class T, int kPack>() {
    gather_sum_grad_kernel<T, kPack><<<ceil_div(count, kWarps), kThreads, 0, cuda_.stream>>>(
        named, dout.as<T>(), dout.strides[0], Weights(dweights, x.dtype), dout.dim(1), count);
    LLMEFF_LAUNCHED("gather_sum_grad_kernel");
  });
}

}  // namespace llmeff::cuda
