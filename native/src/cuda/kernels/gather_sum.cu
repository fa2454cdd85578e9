// Sums of rows by number, out[n] = Σ_j w[n, j] · x[ids[n, j]], a thread a number; and the gradient of the weights, a
// warp each.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/elements.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kWarps = kThreads / 32;

// The rows of x that a list of ids [N, k] names.
struct NamedRows {
  const void* x;
  DType dtype;
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
  return {x.data,       x.dtype,        rows,           x.strides[0], ids.as<const int32_t>(),
          ids.shape[1], ids.strides[0], ids.strides[1], check};
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    gather_sum_kernel(const __grid_constant__ NamedRows named, const void* weights, DType weight_dtype,
                      int64_t weight_row, int64_t weight_column, void* out, int64_t out_row, int64_t width,
                      int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t n = i / width, c = i % width;
  W sum = 0;
  for (int64_t j = 0; j < named.terms; ++j) {
    const int64_t id = named.id(n, j);
    if (id < 0) continue;
    const W weight = weights == nullptr ? W(1) : load_as<W>(weight_dtype, weights, n * weight_row + j * weight_column);
    sum += weight * load_as<W>(named.dtype, named.x, id * named.row_stride + c);
  }
  store_as<W>(named.dtype, out, n * out_row + c, sum);
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    gather_sum_grad_kernel(const __grid_constant__ NamedRows named, const void* dout, int64_t dout_row, void* dweights,
                           DType weight_dtype, int64_t weight_row, int64_t weight_column, int64_t width,
                           int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (i >= count) return;  // the whole warp
  const int64_t n = i / named.terms, j = i % named.terms;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t id = named.id(n, j);
  W sum = 0;
  for (int64_t c = lane; id >= 0 && c < width; c += 32)
    sum +=
        load_as<W>(named.dtype, named.x, id * named.row_stride + c) * load_as<W>(named.dtype, dout, n * dout_row + c);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (lane == 0) store_as<W>(weight_dtype, dweights, n * weight_row + j * weight_column, sum);
}

// call(W) with what numbers of a dtype are added up in.
template <class F>
void with_sums(DType dtype, const F& call) {
  if (dtype == DType::kF64) return call.template operator()<double>();
  call.template operator()<float>();
}

}  // namespace

void CudaKernels::gather_sum(const In& x, const In& ids, const In& weights, const Out& out) {
  const NamedRows named = named_rows(cuda_, x, ids);
  const int64_t width = out.dim(1), count = out.size();
  with_sums(x.dtype, [&]<class W>() {
    gather_sum_kernel<W><<<blocks_for(count, kThreads), kThreads, 0, cuda_.stream>>>(
        named, weights.data, weights.dtype, weights.strides[0], weights.strides[1], out.data, out.strides[0], width,
        count);
    LLMEFF_LAUNCHED("gather_sum_kernel");
  });
}

void CudaKernels::gather_sum_grad(const In& x, const In& ids, const In& dout, const Out& dweights) {
  const NamedRows named = named_rows(cuda_, x, ids);
  const int64_t width = dout.dim(1), count = ids.size();
  with_sums(x.dtype, [&]<class W>() {
    gather_sum_grad_kernel<W><<<blocks_for(count, kWarps), kThreads, 0, cuda_.stream>>>(
        named, dout.data, dout.strides[0], dweights.data, dweights.dtype, dweights.strides[0], dweights.strides[1],
        width, count);
    LLMEFF_LAUNCHED("gather_sum_grad_kernel");
  });
}

}  // namespace llmeff::cuda
