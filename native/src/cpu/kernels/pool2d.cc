// Maxima and means of windows, plane by plane. A task owns whole planes, so that overlapping windows of a gradient are
// added in order.
#include "cpu_kernels.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

struct Windows {
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
  int64_t planes = 0, height = 0, width = 0, out_height = 0, out_width = 0;

  void shape(const View& x, const View& out) {
    planes = x.shape[0] * x.shape[1], height = x.shape[2], width = x.shape[3];
    out_height = out.shape[2], out_width = out.shape[3];
  }
};

// body(position of the window, first row, row after the last, first column, column after the last) for every window of
// a plane, cut at the edges.
template <class F>
LLMEFF_INLINE void each_window(const Windows& w, const F& body) {
  for (int64_t oh = 0, p = 0; oh < w.out_height; ++oh) {
    const int64_t top = oh * w.stride_h - w.padding_h;
    for (int64_t ow = 0; ow < w.out_width; ++ow, ++p) {
      const int64_t left = ow * w.stride_w - w.padding_w;
      body(p, larger(0, top), smaller(w.height, top + w.kernel_h), larger(0, left),
           smaller(w.width, left + w.kernel_w));
    }
  }
}

// body(plane of x, plane of out): offsets.
template <class F>
LLMEFF_INLINE void each_plane(const Windows& w, const F& body) {
  const int64_t in = w.height * w.width, out = w.out_height * w.out_width;
  parallel_items(w.planes, in + out * w.kernel_h * w.kernel_w,
                 [&](int64_t plane, int) { body(plane * in, plane * out); });
}

template <class T>
void max_forward(const Windows& w, const T* x, T* out, int32_t* indices) {
  each_plane(w, [&](int64_t in_plane, int64_t out_plane) {
    const T* const p = x + in_plane;
    each_window(w, [&](int64_t at, int64_t top, int64_t bottom, int64_t left, int64_t right) {
      int64_t best = top * w.width + left;
      T max = p[best];
      for (int64_t h = top; h < bottom; ++h)
        for (int64_t i = h * w.width + left; i < h * w.width + right; ++i)
          if (p[i] > max || (p[i] != p[i] && max == max)) max = p[i], best = i;
      out[out_plane + at] = max;
      indices[out_plane + at] = static_cast<int32_t>(best);
    });
  });
}

template <class T>
void max_backward(int64_t planes, int64_t in, int64_t out, const T* dout, const int32_t* indices, T* dx) {
  parallel_items(planes, in + out, [&](int64_t plane, int) {
    T* const target = dx + plane * in;
    for (int64_t i = 0; i < in; ++i) target[i] = 0;
    for (int64_t i = plane * out; i < (plane + 1) * out; ++i) target[indices[i]] += dout[i];
  });
}

template <class T>
void mean_forward(const Windows& w, const T* x, T* out) {
  each_plane(w, [&](int64_t in_plane, int64_t out_plane) {
    each_window(w, [&](int64_t at, int64_t top, int64_t bottom, int64_t left, int64_t right) {
      T sum = 0;
      for (int64_t h = top; h < bottom; ++h)
        for (int64_t i = left; i < right; ++i) sum += x[in_plane + h * w.width + i];
      out[out_plane + at] = sum / static_cast<T>((bottom - top) * (right - left));
    });
  });
}

template <class T>
void mean_backward(const Windows& w, const T* dout, T* dx) {
  each_plane(w, [&](int64_t in_plane, int64_t out_plane) {
    T* const target = dx + in_plane;
    for (int64_t i = 0; i < w.height * w.width; ++i) target[i] = 0;
    each_window(w, [&](int64_t at, int64_t top, int64_t bottom, int64_t left, int64_t right) {
      const T share = dout[out_plane + at] / static_cast<T>((bottom - top) * (right - left));
      for (int64_t h = top; h < bottom; ++h)
        for (int64_t i = left; i < right; ++i) target[h * w.width + i] += share;
    });
  });
}

}  // namespace

void CpuKernels::max_pool2d(const In& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                            int64_t padding_h, int64_t padding_w, const Out& out, const Out& indices) {
  Windows w = {kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w};
  w.shape(x, out);
  if (x.dtype == DType::kF64)
    max_forward(w, x.as<const double>(), out.as<double>(), indices.as<int32_t>());
  else
    max_forward(w, x.as<const float>(), out.as<float>(), indices.as<int32_t>());
}

void CpuKernels::max_pool2d_grad(const In& dout, const In& indices, const Out& dx) {
  const int64_t planes = dx.shape[0] * dx.shape[1], in = dx.shape[2] * dx.shape[3], out = dout.shape[2] * dout.shape[3];
  if (dx.dtype == DType::kF64)
    max_backward(planes, in, out, dout.as<const double>(), indices.as<const int32_t>(), dx.as<double>());
  else
    max_backward(planes, in, out, dout.as<const float>(), indices.as<const int32_t>(), dx.as<float>());
}

void CpuKernels::avg_pool2d(const In& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                            int64_t padding_h, int64_t padding_w, const Out& out) {
  Windows w = {kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w};
  w.shape(x, out);
  if (x.dtype == DType::kF64)
    mean_forward(w, x.as<const double>(), out.as<double>());
  else
    mean_forward(w, x.as<const float>(), out.as<float>());
}

void CpuKernels::avg_pool2d_grad(const In& dout, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                                 int64_t padding_h, int64_t padding_w, const Out& dx) {
  Windows w = {kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w};
  w.shape(dx, dout);
  if (dx.dtype == DType::kF64)
    mean_backward(w, dout.as<const double>(), dx.as<double>());
  else
    mean_backward(w, dout.as<const float>(), dx.as<float>());
}

}  // namespace llmeff::cpu::LLMEFF_ISA
