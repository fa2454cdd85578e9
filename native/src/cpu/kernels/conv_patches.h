// The geometry of a 2-d convolution, and its patches as a matrix (im2col).
//
// Row k = (c, r, s) of the patch matrix of one image and group holds, for every output position p = oh·OW + ow, the
// input element that weight k meets there, or zero in the padding:
//   patch[k, p] = x[c, oh·stride_h − padding_h + r·dilation_h, ow·stride_w − padding_w + s·dilation_w].
// So out[o, p] = Σ_k weight[o, k]·patch[k, p]. Only tiles of the matrix ever exist.
#pragma once

#include "llmeff/view.h"
#include "simd.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {

struct Convolution {
  int64_t stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups;
  int64_t batch = 0, height = 0, width = 0, kernel_h = 0, kernel_w = 0, out_height = 0, out_width = 0;
  int64_t in_channels = 0, out_channels = 0;  // of a group
  bool transposed = false;  // the weights are those of the convolution that this one is the gradient of

  void shape(const View& x, const View& weight, const View& out) {
    batch = x.shape[0], height = x.shape[2], width = x.shape[3];
    kernel_h = weight.shape[2], kernel_w = weight.shape[3];
    out_height = out.shape[2], out_width = out.shape[3];
    in_channels = weight.shape[1], out_channels = weight.shape[0] / groups;
  }
  int64_t taps() const { return kernel_h * kernel_w; }          // rows of a patch from one channel
  int64_t depth() const { return in_channels * taps(); }        // rows of a patch
  int64_t positions() const { return out_height * out_width; }  // columns
  int64_t plane() const { return height * width; }
  int64_t extent_h() const { return dilation_h * (kernel_h - 1); }  // rows of a window past its first
  int64_t extent_w() const { return dilation_w * (kernel_w - 1); }
  // Each channel is convolved for itself.
  bool depthwise() const { return in_channels == 1 && out_channels == 1; }
  // The gradient of the input is a convolution of dout, with the windows turned by half a turn and the channels
  // exchanged.
  bool has_transpose() const {
    return stride_h == 1 && stride_w == 1 && padding_h <= extent_h() && padding_w <= extent_w();
  }
  Convolution transpose() const {
    Convolution t = *this;
    t.padding_h = extent_h() - padding_h, t.padding_w = extent_w() - padding_w;
    t.height = out_height, t.width = out_width, t.out_height = height, t.out_width = width;
    t.in_channels = out_channels, t.out_channels = in_channels;
    t.transposed = !transposed;
    return t;
  }
  // Where the weight of an output and an input channel and a tap, all counted within the group, lies in memory.
  int64_t weight_at(int64_t group, int64_t o, int64_t i, int64_t tap) const {
    if (!transposed) return ((group * out_channels + o) * in_channels + i) * taps() + tap;
    return ((group * in_channels + i) * out_channels + o) * taps() + taps() - 1 - tap;
  }
  // The patch matrix is the input itself.
  bool pointwise() const { return taps() == 1 && stride_h == 1 && stride_w == 1 && padding_h == 0 && padding_w == 0; }
};

// Row k of the patch matrix at positions [first, first + count), in pieces that lie in one row of the output:
// inside(at, from, n): patch elements [at, at + n), counted from `first`, are x[from + i·stride_w] of the input group;
// padding(at, n): they are zeros.
template <class Inside, class Padding>
LLMEFF_INLINE void each_piece(const Convolution& c, int64_t k, int64_t first, int64_t count, const Inside& inside,
                              const Padding& padding) {
  const int64_t channel = k / c.taps(), r = k % c.taps() / c.kernel_w, s = k % c.kernel_w;
  const int64_t shift = s * c.dilation_w - c.padding_w;  // input column of output column 0
  // Output columns whose input column lies in [0, width).
  const int64_t low = shift >= 0 ? 0 : smaller(c.out_width, ceil_div(-shift, c.stride_w));
  const int64_t high =
      c.width <= shift ? low : larger(low, smaller(c.out_width, ceil_div(c.width - shift, c.stride_w)));
  int64_t oh = first / c.out_width, begin = first % c.out_width;
  for (int64_t at = 0; at < count; ++oh, begin = 0) {
    const int64_t end = smaller(c.out_width, begin + count - at);
    const int64_t ih = oh * c.stride_h - c.padding_h + r * c.dilation_h;
    if (ih < 0 || ih >= c.height) {
      padding(at, end - begin);
    } else {
      const int64_t from = larger(begin, low), to = smaller(end, high);
      if (from >= to) {
        padding(at, end - begin);
      } else {
        if (begin < from) padding(at, from - begin);
        inside(at + from - begin, channel * c.plane() + ih * c.width + from * c.stride_w + shift, to - from);
        if (to < end) padding(at + to - begin, end - to);
      }
    }
    at += end - begin;
  }
}

// to[i] = from[i], of n elements that are often few: the last vector overlaps the one before.
template <class T>
LLMEFF_INLINE void copy_line(T* to, const T* from, int64_t n) {
  constexpr int64_t L = kLanes<T>;
  if (n < L) {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i];
    return;
  }
  int64_t i = 0;
  for (; i + L <= n; i += L) store(to + i, load(from + i));
  if (i < n) store(to + n - L, load(from + n - L));
}

// Rows [k0, k0 + rows) of the patch matrix of x (one image, one group) at positions [first, first + count) into a
// row-major tile.
template <class T>
void gather_patches(const Convolution& c, const T* x, int64_t k0, int64_t rows, int64_t first, int64_t count, T* tile,
                    int64_t ld) {
  for (int64_t k = 0; k < rows; ++k) {
    T* const to = tile + k * ld;
    each_piece(
        c, k0 + k, first, count,
        [&](int64_t at, int64_t from, int64_t n) {
          if (c.stride_w == 1) return copy_line(to + at, x + from, n);
          for (int64_t i = 0; i < n; ++i) to[at + i] = x[from + i * c.stride_w];
        },
        [&](int64_t at, int64_t n) {
          for (int64_t i = 0; i < n; ++i) to[at + i] = 0;
        });
  }
}

// The transpose: adds each element of the tile to the element of x that it came from.
template <class T>
void scatter_patches(const Convolution& c, const T* tile, int64_t ld, int64_t k0, int64_t rows, int64_t first,
                     int64_t count, T* x) {
  for (int64_t k = 0; k < rows; ++k) {
    const T* const from = tile + k * ld;
    each_piece(
        c, k0 + k, first, count,
        [&](int64_t at, int64_t to, int64_t n) {
          if (c.stride_w != 1) {
            for (int64_t i = 0; i < n; ++i) x[to + i * c.stride_w] += from[at + i];
            return;
          }
          map_vectors(
              n, [](Vec<T> a, Vec<T> b) { return a + b; }, x + to, x + to, from + at);
        },
        [](int64_t, int64_t) {});
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA
