// The geometry of a 2-d convolution. Row k = (c, r, s) of the patch matrix holds, for every image b and output position
// p = oh·OW + ow, the input element that weight k meets there, or zero in the padding:
//   patch[k, b·OH·OW + p] = x[b, c, oh·stride_h − padding_h + r·dilation_h, ow·stride_w − padding_w + s·dilation_w].
// So out[o, b·OH·OW + p] = Σ_k weight[o, k]·patch[k, b·OH·OW + p], in each group of channels for itself.
#pragma once

#include "llmeff/view.h"

namespace llmeff::cuda {

struct Convolution {
  int64_t stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups;
  int64_t batch = 0, height = 0, width = 0, kernel_h = 0, kernel_w = 0, out_height = 0, out_width = 0;
  int64_t in_channels = 0, out_channels = 0;  // of all groups

  void shape(const View& x, const View& weight, const View& out) {
    batch = x.shape[0], in_channels = x.shape[1], height = x.shape[2], width = x.shape[3];
    out_channels = weight.shape[0], kernel_h = weight.shape[2], kernel_w = weight.shape[3];
    out_height = out.shape[2], out_width = out.shape[3];
  }
  // Each channel is convolved for itself.
  bool depthwise() const { return groups == in_channels && groups == out_channels; }

#ifdef __CUDACC__
#define LLMEFF_BOTH __host__ __device__
#else
#define LLMEFF_BOTH
#endif
  LLMEFF_BOTH int64_t taps() const { return kernel_h * kernel_w; }
  LLMEFF_BOTH int64_t depth() const { return in_channels / groups * taps(); }  // rows of the patches of a group
  LLMEFF_BOTH int64_t positions() const { return out_height * out_width; }
  LLMEFF_BOTH int64_t plane() const { return height * width; }

  // Where in its plane a tap meets the input at an output position; −1 in the padding.
  LLMEFF_BOTH int64_t input_at(int64_t oh, int64_t ow, int64_t tap) const {
    const int64_t h = oh * stride_h - padding_h + tap / kernel_w * dilation_h,
                  w = ow * stride_w - padding_w + tap % kernel_w * dilation_w;
    return h >= 0 && h < height && w >= 0 && w < width ? h * width + w : -1;
  }
  // The output position at which a tap meets the input at (h, w); −1 if there is none.
  LLMEFF_BOTH int64_t output_at(int64_t h, int64_t w, int64_t tap) const {
    const int64_t up = h + padding_h - tap / kernel_w * dilation_h, left = w + padding_w - tap % kernel_w * dilation_w;
    if (up < 0 || left < 0 || up % stride_h != 0 || left % stride_w != 0) return -1;
    const int64_t oh = up / stride_h, ow = left / stride_w;
    return oh < out_height && ow < out_width ? oh * out_width + ow : -1;
  }
#undef LLMEFF_BOTH
};

}  // namespace llmeff::cuda
