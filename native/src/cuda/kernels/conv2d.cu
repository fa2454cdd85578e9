// 2-d convolution as products with the patch matrix (convolution.cuh), some images at a time so that it stays bounded:
//   out = weight·patch + bias,  dweight = Σ over images of dout·patchᵀ,  dpatch = weightᵀ·dout gathered to dx.
// The columns of a matrix are the positions of all its images, in one product for each group; so out comes as [O,
// B·OH·OW] in float32 and is turned to [B, O, OH·OW] where the bias is added and the sum rounded, and dout is turned
// before. Depthwise convolutions, where the products would be of single rows, are summed directly.
#include "cuda/kernels/convolution.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kScratchBytes = int64_t{256} << 20;  // of the matrices of some images
constexpr int kRowsPerThread = 8;

template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_patches_kernel(Convolution c, const T* x, int64_t columns, int64_t stride, T* patches) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= columns) return;
  const int64_t image = column / c.positions(), p = column % c.positions(), oh = p / c.out_width, ow = p % c.out_width;
  const T* const from = x + image * c.in_channels * c.plane();
  const int64_t rows = c.in_channels * c.taps(), first = static_cast<int64_t>(blockIdx.y) * kRowsPerThread;
  int64_t channel = first / c.taps(), tap = first % c.taps();
#pragma unroll
  for (int i = 0; i < kRowsPerThread; ++i) {
    if (first + i >= rows) return;
    const int64_t at = c.input_at(oh, ow, tap);
    patches[(first + i) * stride + column] = at < 0 ? narrow<T>(wide_t<T>{0}) : from[channel * c.plane() + at];
    if (++tap == c.taps()) tap = 0, ++channel;
  }
}

// dx[b, c, h, w] = Σ over taps of the patch elements that it went to.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_patches_kernel(Convolution c, const wide_t<T>* dpatches, int64_t stride, int64_t count, T* dx) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t w = i % c.width, h = i / c.width % c.height, channel = i / c.plane() % c.in_channels,
                image = i / c.plane() / c.in_channels;
  wide_t<T> sum = 0;
  for (int64_t tap = 0; tap < c.taps(); ++tap) {
    const int64_t p = c.output_at(h, w, tap);
    if (p >= 0) sum += dpatches[(channel * c.taps() + tap) * stride + image * c.positions() + p];
  }
  dx[i] = narrow<T>(sum);
}

// to[b, o, p] = from[o, b·P + p] + bias[o]
template <class T>
__global__ void __launch_bounds__(kThreads)
    images_from_rows_kernel(const wide_t<T>* from, int64_t stride, const T* bias, int64_t channels, int64_t positions,
                            int64_t count, T* to) {
  using W = wide_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t p = i % positions, o = i / positions % channels, image = i / positions / channels;
  const W sum = from[o * stride + image * positions + p];
  to[i] = narrow<T>(bias == nullptr ? sum : sum + widen<W>(bias[o]));
}

// to[o, b·P + p] = from[b, o, p]
template <class T>
__global__ void __launch_bounds__(kThreads)
    rows_from_images_kernel(const T* from, int64_t stride, int64_t channels, int64_t positions, int64_t count, T* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t p = i % positions, o = i / positions % channels, image = i / positions / channels;
  to[o * stride + image * positions + p] = from[i];
}

template <class T>
__global__ void __launch_bounds__(kThreads) round_kernel(const wide_t<T>* from, int64_t count, T* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) to[i] = narrow<T>(from[i]);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    bias_gradient_kernel(const T* dout, int64_t batch, int64_t channels, int64_t positions, T* dbias) {
  using W = wide_t<T>;
  const int64_t o = blockIdx.x;
  W sums[1] = {};
  for (int64_t i = threadIdx.x; i < batch * positions; i += kThreads)
    sums[0] += widen<W>(dout[(i / positions * channels + o) * positions + i % positions]);
  row_sums(sums);
  if (threadIdx.x == 0) dbias[o] = narrow<T>(sums[0]);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    depthwise_kernel(Convolution c, const T* x, const T* weight, const T* bias, int64_t count, T* out) {
  using W = wide_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t p = i % c.positions(), oh = p / c.out_width, ow = p % c.out_width, plane = i / c.positions(),
                channel = plane % c.in_channels;
  W sum = 0;
  for (int64_t tap = 0; tap < c.taps(); ++tap) {
    const int64_t at = c.input_at(oh, ow, tap);
    if (at >= 0) sum += widen<W>(weight[channel * c.taps() + tap]) * widen<W>(x[plane * c.plane() + at]);
  }
  out[i] = narrow<T>(bias == nullptr ? sum : sum + widen<W>(bias[channel]));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    depthwise_input_gradient_kernel(Convolution c, const T* dout, const T* weight, int64_t count, T* dx) {
  using W = wide_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t w = i % c.width, h = i / c.width % c.height, plane = i / c.plane(), channel = plane % c.in_channels;
  W sum = 0;
  for (int64_t tap = 0; tap < c.taps(); ++tap) {
    const int64_t p = c.output_at(h, w, tap);
    if (p >= 0) sum += widen<W>(weight[channel * c.taps() + tap]) * widen<W>(dout[plane * c.positions() + p]);
  }
  dx[i] = narrow<T>(sum);
}

// A block for every weight.
template <class T>
__global__ void __launch_bounds__(kThreads)
    depthwise_weight_gradient_kernel(Convolution c, const T* dout, const T* x, T* dweight) {
  using W = wide_t<T>;
  const int64_t channel = blockIdx.x / c.taps(), tap = blockIdx.x % c.taps();
  W sums[1] = {};
  for (int64_t i = threadIdx.x; i < c.batch * c.positions(); i += kThreads) {
    const int64_t p = i % c.positions(), plane = i / c.positions() * c.in_channels + channel,
                  at = c.input_at(p / c.out_width, p % c.out_width, tap);
    if (at >= 0) sums[0] += widen<W>(dout[plane * c.positions() + p]) * widen<W>(x[plane * c.plane() + at]);
  }
  row_sums(sums);
  if (threadIdx.x == 0) dweight[blockIdx.x] = narrow<T>(sums[0]);
}

template <class T>
constexpr DType kDTypeOf = __is_same(T, double) ? DType::kF64
                           : __is_same(T, bf16) ? DType::kBF16
                           : __is_same(T, f16)  ? DType::kF16
                                                : DType::kF32;

// A stack of matrices.
template <class T>
View stack(T* data, int64_t count, int64_t rows, int64_t columns, int64_t step, int64_t row_stride,
           int64_t column_stride) {
  View v;
  v.data = const_cast<void*>(static_cast<const void*>(data));
  v.dtype = kDTypeOf<std::remove_const_t<T>>;
  v.rank = 3;
  v.shape[0] = count, v.shape[1] = rows, v.shape[2] = columns;
  v.strides[0] = step, v.strides[1] = row_stride, v.strides[2] = column_stride;
  return v;
}

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>(ceil_div(count, kThreads));
}

// The matrices of some images: columns are padded to 16 bytes, with nothing in the padding.
template <class T>
struct Images {
  int64_t at_once, stride;
  // bytes_per_column of all matrices that exist at once
  Images(const Convolution& c, int64_t bytes_per_column)
      : at_once(std::min(c.batch, std::max<int64_t>(1, kScratchBytes / (bytes_per_column * c.positions())))),
        stride(round_up(at_once * c.positions(), Pack<T>::kSize)) {}
};

template <class T>
void gather_patches(Context& cuda, const Convolution& c, const T* x, int64_t columns, int64_t stride, T* patches) {
  const int64_t rows = c.in_channels * c.taps();
  constexpr int64_t kMostRows = int64_t{65535} * kRowsPerThread;
  if (rows > kMostRows)
    fail("ERR_SHAPE", "[conv2d] more than %lld weights an output.", static_cast<long long>(kMostRows));
  gather_patches_kernel<T>
      <<<dim3(blocks_for(columns), static_cast<unsigned>(ceil_div(rows, kRowsPerThread))), kThreads, 0, cuda.stream>>>(
          c, x, columns, stride, patches);
  LLMEFF_LAUNCHED("gather_patches_kernel");
}

template <class T>
void forward(Context& cuda, const Convolution& c, const T* x, const T* weight, const T* bias, T* out) {
  using W = wide_t<T>;
  const int64_t positions = c.positions(), depth = c.depth(), outputs = c.out_channels / c.groups;
  if (c.depthwise()) {
    const int64_t count = c.batch * c.out_channels * positions;
    depthwise_kernel<T><<<blocks_for(count), kThreads, 0, cuda.stream>>>(c, x, weight, bias, count, out);
    LLMEFF_LAUNCHED("depthwise_kernel");
    return;
  }
  const Images<T> images(c, c.in_channels * c.taps() * sizeof(T) + c.out_channels * sizeof(W));
  T* const patches = cuda.scratch<T>(c.in_channels * c.taps() * images.stride);
  W* const sums = cuda.scratch<W>(c.out_channels * images.stride);
  for (int64_t image = 0; image < c.batch; image += images.at_once) {
    const int64_t columns = std::min(images.at_once, c.batch - image) * positions, count = columns * c.out_channels;
    gather_patches(cuda, c, x + image * c.in_channels * c.plane(), columns, images.stride, patches);
    gemm(cuda, stack(weight, c.groups, outputs, depth, outputs * depth, depth, 1),
         stack(patches, c.groups, depth, columns, depth * images.stride, images.stride, 1),
         stack(sums, c.groups, outputs, columns, outputs * images.stride, images.stride, 1));
    images_from_rows_kernel<T><<<blocks_for(count), kThreads, 0, cuda.stream>>>(
        sums, images.stride, bias, c.out_channels, positions, count, out + image * c.out_channels * positions);
    LLMEFF_LAUNCHED("images_from_rows_kernel");
  }
}

template <class T>
void depthwise_backward(Context& cuda, const Convolution& c, const T* dout, const T* x, const T* weight, T* dx,
                        T* dweight) {
  if (dx != nullptr) {
    const int64_t count = c.batch * c.in_channels * c.plane();
    depthwise_input_gradient_kernel<T><<<blocks_for(count), kThreads, 0, cuda.stream>>>(c, dout, weight, count, dx);
    LLMEFF_LAUNCHED("depthwise_input_gradient_kernel");
  }
  if (dweight != nullptr) {
    depthwise_weight_gradient_kernel<T>
        <<<static_cast<unsigned>(c.in_channels * c.taps()), kThreads, 0, cuda.stream>>>(c, dout, x, dweight);
    LLMEFF_LAUNCHED("depthwise_weight_gradient_kernel");
  }
}

template <class T>
void backward(Context& cuda, const Convolution& c, const T* dout, const T* x, const T* weight, T* dx, T* dweight) {
  using W = wide_t<T>;
  if (c.depthwise()) return depthwise_backward(cuda, c, dout, x, weight, dx, dweight);
  const int64_t positions = c.positions(), depth = c.depth(), outputs = c.out_channels / c.groups,
                rows = c.in_channels * c.taps(), weights = c.out_channels * depth;
  const Images<T> images(c, c.out_channels * sizeof(T) + rows * (dx != nullptr ? sizeof(W) : 0) +
                                rows * (dweight != nullptr ? sizeof(T) : 0));
  const int64_t stride = images.stride;
  T* const douts = cuda.scratch<T>(c.out_channels * stride);
  W* const dpatches = dx != nullptr ? cuda.scratch<W>(rows * stride) : nullptr;
  T* const patches = dweight != nullptr ? cuda.scratch<T>(rows * stride) : nullptr;
  // Added up over the images in what is computed with.
  W* dweights = nullptr;
  if constexpr (__is_same(T, W))
    dweights = dweight;
  else if (dweight != nullptr)
    dweights = cuda.scratch<W>(weights);
  for (int64_t image = 0; image < c.batch; image += images.at_once) {
    const int64_t some = std::min(images.at_once, c.batch - image), columns = some * positions;
    rows_from_images_kernel<T><<<blocks_for(columns * c.out_channels), kThreads, 0, cuda.stream>>>(
        dout + image * c.out_channels * positions, stride, c.out_channels, positions, columns * c.out_channels, douts);
    LLMEFF_LAUNCHED("rows_from_images_kernel");
    const View d = stack(douts, c.groups, outputs, columns, outputs * stride, stride, 1);
    if (dx != nullptr) {
      gemm(cuda, stack(weight, c.groups, depth, outputs, outputs * depth, 1, depth), d,
           stack(dpatches, c.groups, depth, columns, depth * stride, stride, 1));
      const int64_t count = some * c.in_channels * c.plane();
      sum_patches_kernel<T><<<blocks_for(count), kThreads, 0, cuda.stream>>>(c, dpatches, stride, count,
                                                                             dx + image * c.in_channels * c.plane());
      LLMEFF_LAUNCHED("sum_patches_kernel");
    }
    if (dweight != nullptr) {
      gather_patches(cuda, c, x + image * c.in_channels * c.plane(), columns, stride, patches);
      gemm(cuda, d, stack(patches, c.groups, columns, depth, depth * stride, 1, stride),
           stack(dweights, c.groups, outputs, depth, outputs * depth, depth, 1), {.accumulate = image > 0});
    }
  }
  if constexpr (!__is_same(T, W)) {
    if (dweight == nullptr) return;
    round_kernel<T><<<blocks_for(weights), kThreads, 0, cuda.stream>>>(dweights, weights, dweight);
    LLMEFF_LAUNCHED("round_kernel");
  }
}

}  // namespace

void CudaKernels::conv2d(const In& x, const In& weight, const In& bias, int64_t stride_h, int64_t stride_w,
                         int64_t padding_h, int64_t padding_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                         const Out& out) {
  Convolution c = {stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups};
  c.shape(x, weight, out);
  with_floating(x.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    forward<T>(cuda_, c, x.as<T>(), weight.as<T>(), bias.as<T>(), out.as<T>());
  });
}

void CudaKernels::conv2d_grad(const In& dout, const In& x, const In& weight, int64_t stride_h, int64_t stride_w,
                              int64_t padding_h, int64_t padding_w, int64_t dilation_h, int64_t dilation_w,
                              int64_t groups, const Out& dx, const Out& dweight, const Out& dbias) {
  Convolution c = {stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups};
  c.shape(x, weight, dout);
  with_floating(x.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    if (dx.present() || dweight.present())
      backward<T>(cuda_, c, dout.as<T>(), x.as<T>(), weight.as<T>(), dx.as<T>(), dweight.as<T>());
    if (!dbias.present()) return;
    bias_gradient_kernel<T><<<static_cast<unsigned>(c.out_channels), kThreads, 0, cuda_.stream>>>(
        dout.as<T>(), c.batch, c.out_channels, c.positions(), dbias.as<T>());
    LLMEFF_LAUNCHED("bias_gradient_kernel");
  });
}

}  // namespace llmeff::cuda
