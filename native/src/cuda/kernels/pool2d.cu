// Maxima and means of windows over x [B, C, H, W], a thread for each result. Padding never wins a maximum and is not
// counted in a mean. Gradients are gathered: of the mean by each element of dx from the windows over it, in their
// order; of the maximum by sorting the winners.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/elements.cuh"
#include "cuda/kernels/scatter.h"

namespace llmeff::cuda {
namespace {

struct Windows {
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
  int height, width, out_height, out_width;
  int64_t planes;
  DType dtype;
};

Windows windows_of(const View& x, const View& out, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
                   int64_t stride_w, int64_t padding_h, int64_t padding_w) {
  const auto narrow_size = [](int64_t n) { return static_cast<int>(n); };
  return {narrow_size(kernel_h),     narrow_size(kernel_w),     narrow_size(stride_h),   narrow_size(stride_w),
          narrow_size(padding_h),    narrow_size(padding_w),    narrow_size(x.shape[2]), narrow_size(x.shape[3]),
          narrow_size(out.shape[2]), narrow_size(out.shape[3]), x.shape[0] * x.shape[1], x.dtype};
}

// A window, cut at the edges.
struct Window {
  int top, bottom, left, right;
};
__device__ __forceinline__ Window window_at(const Windows& w, int oh, int ow) {
  const int top = oh * w.stride_h - w.padding_h, left = ow * w.stride_w - w.padding_w;
  return {max(0, top), min(w.height, top + w.kernel_h), max(0, left), min(w.width, left + w.kernel_w)};
}

// Thread i has result i of `rows` × `columns` planes.
struct Result {
  int64_t plane;
  int row, column;
};
__device__ __forceinline__ bool find_result(int64_t planes, int rows, int columns, Result* result) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t row = i / columns;
  result->plane = row / rows;
  result->row = static_cast<int>(row - result->plane * rows);
  result->column = static_cast<int>(i - row * columns);
  return result->plane < planes;
}

template <class W>
__global__ void __launch_bounds__(kThreads) max_pool2d_kernel(const Windows w, const void* __restrict__ x,
                                                              void* __restrict__ out, int32_t* __restrict__ indices) {
  Result at;
  if (!find_result(w.planes, w.out_height, w.out_width, &at)) return;
  const int64_t plane = at.plane * w.height * w.width;
  const Window window = window_at(w, at.row, at.column);
  int best = window.top * w.width + window.left;
  W most = load_as<W>(w.dtype, x, plane + best);
  for (int h = window.top; h < window.bottom; ++h) {
    for (int i = h * w.width + window.left; i < h * w.width + window.right; ++i) {
      const W value = load_as<W>(w.dtype, x, plane + i);
      if (value > most || (value != value && most == most)) most = value, best = i;
    }
  }
  const int64_t to = (at.plane * w.out_height + at.row) * w.out_width + at.column;
  store_as<W>(w.dtype, out, to, most);
  indices[to] = best;
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    avg_pool2d_kernel(const Windows w, const void* __restrict__ x, void* __restrict__ out) {
  Result at;
  if (!find_result(w.planes, w.out_height, w.out_width, &at)) return;
  const int64_t plane = at.plane * w.height * w.width;
  const Window window = window_at(w, at.row, at.column);
  W sum = 0;
  for (int h = window.top; h < window.bottom; ++h)
    for (int i = window.left; i < window.right; ++i) sum += load_as<W>(w.dtype, x, plane + int64_t{h} * w.width + i);
  store_as<W>(w.dtype, out, (at.plane * w.out_height + at.row) * w.out_width + at.column,
              sum / static_cast<W>((window.bottom - window.top) * (window.right - window.left)));
}

// The first window that reaches position p: the smallest o ≥ 0 with o·stride − padding + kernel > p.
__device__ __forceinline__ int first_window(int p, int kernel, int stride, int padding) {
  const int lowest = p + padding - kernel + 1;
  return lowest <= 0 ? 0 : (lowest + stride - 1) / stride;
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    avg_pool2d_grad_kernel(const Windows w, const void* __restrict__ dout, void* __restrict__ dx) {
  Result at;
  if (!find_result(w.planes, w.height, w.width, &at)) return;
  const int64_t plane = at.plane * w.out_height * w.out_width;
  const int first_h = first_window(at.row, w.kernel_h, w.stride_h, w.padding_h);
  const int first_w = first_window(at.column, w.kernel_w, w.stride_w, w.padding_w);
  const int last_h = min(w.out_height - 1, (at.row + w.padding_h) / w.stride_h);
  const int last_w = min(w.out_width - 1, (at.column + w.padding_w) / w.stride_w);
  W sum = 0;
  for (int oh = first_h; oh <= last_h; ++oh) {
    for (int ow = first_w; ow <= last_w; ++ow) {
      const Window window = window_at(w, oh, ow);
      sum += load_as<W>(w.dtype, dout, plane + int64_t{oh} * w.out_width + ow) /
             static_cast<W>((window.bottom - window.top) * (window.right - window.left));
    }
  }
  store_as<W>(w.dtype, dx, (at.plane * w.height + at.row) * w.width + at.column, sum);
}

}  // namespace

void CudaKernels::max_pool2d(const In& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                             int64_t padding_h, int64_t padding_w, const Out& out, const Out& indices) {
  const Windows w = windows_of(x, out, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w);
  const unsigned blocks = blocks_for(out.size(), kThreads);
  if (x.dtype == DType::kF64)
    max_pool2d_kernel<double><<<blocks, kThreads, 0, cuda_.stream>>>(w, x.data, out.data, indices.as<int32_t>());
  else
    max_pool2d_kernel<float><<<blocks, kThreads, 0, cuda_.stream>>>(w, x.data, out.data, indices.as<int32_t>());
  LLMEFF_LAUNCHED("max_pool2d_kernel");
}

void CudaKernels::max_pool2d_grad(const In& dout, const In& indices, const Out& dx) {
  fill(0, dx);
  // Planes are the lists of winners.
  const auto planes_of = [](const View& view) {
    View planes = view;
    planes.rank = 2;
    planes.shape[0] = view.shape[0] * view.shape[1], planes.shape[1] = view.shape[2] * view.shape[3];
    planes.strides[0] = planes.shape[1], planes.strides[1] = 1;
    return planes;
  };
  add_at(cuda_, planes_of(dout), planes_of(indices), 1, planes_of(dx), nullptr);
}

void CudaKernels::avg_pool2d(const In& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                             int64_t padding_h, int64_t padding_w, const Out& out) {
  const Windows w = windows_of(x, out, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w);
  const unsigned blocks = blocks_for(out.size(), kThreads);
  if (x.dtype == DType::kF64)
    avg_pool2d_kernel<double><<<blocks, kThreads, 0, cuda_.stream>>>(w, x.data, out.data);
  else
    avg_pool2d_kernel<float><<<blocks, kThreads, 0, cuda_.stream>>>(w, x.data, out.data);
  LLMEFF_LAUNCHED("avg_pool2d_kernel");
}

void CudaKernels::avg_pool2d_grad(const In& dout, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
                                  int64_t stride_w, int64_t padding_h, int64_t padding_w, const Out& dx) {
  const Windows w = windows_of(dx, dout, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w);
  const unsigned blocks = blocks_for(dx.size(), kThreads);
  if (dx.dtype == DType::kF64)
    avg_pool2d_grad_kernel<double><<<blocks, kThreads, 0, cuda_.stream>>>(w, dout.data, dx.data);
  else
    avg_pool2d_grad_kernel<float><<<blocks, kThreads, 0, cuda_.stream>>>(w, dout.data, dx.data);
  LLMEFF_LAUNCHED("avg_pool2d_grad_kernel");
}

}  // namespace llmeff::cuda
