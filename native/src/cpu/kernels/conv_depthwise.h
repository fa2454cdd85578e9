// Depthwise convolution, where products with patches would copy as much as they compute: each plane is copied once with
// its padding, and vectors of outputs add up the taps from there.
#pragma once

#include "conv_patches.h"
#include "row_math.h"

namespace llmeff::cpu::LLMEFF_ISA {

// A plane with the zeros around it that the windows reach, and room for whole vectors behind each row.
template <class T>
struct PaddedPlane {
  const Convolution& c;
  int64_t rows, ld;
  explicit PaddedPlane(const Convolution& of)
      : c(of),
        rows((of.out_height - 1) * of.stride_h + of.extent_h() + 1),
        ld((of.out_width - 1 + kLanes<T>)*of.stride_w + of.extent_w() + 1) {}

  int64_t elements() const { return rows * ld; }
  void fill(const T* plane, T* to) const {
    for (int64_t i = 0; i < elements(); ++i) to[i] = 0;
    const int64_t columns = smaller(c.width, ld - c.padding_w);
    for (int64_t h = 0; h < smaller(c.height, rows - c.padding_h); ++h)
      copy_line(to + (h + c.padding_h) * ld + c.padding_w, plane + h * c.width, columns);
  }
  // The input that the first tap of row r of a window meets at output (oh, ow).
  LLMEFF_INLINE const T* row(const T* padded, int64_t oh, int64_t ow, int64_t r) const {
    return padded + (oh * c.stride_h + r * c.dilation_h) * ld + ow * c.stride_w;
  }
};

// The inputs of one tap at kLanes neighbouring outputs.
template <bool kUnitStride, class T>
LLMEFF_INLINE Vec<T> tap_inputs(const T* p, int64_t stride) {
  if constexpr (kUnitStride)
    return load(p);
  else
    return gather(p, stride, kLanes<T>);
}

template <bool kUnitStride, class T>
void depthwise_plane(const PaddedPlane<T>& plane, const T* padded, const T* taps, T bias, T* out) {
  const Convolution& c = plane.c;
  for (int64_t oh = 0; oh < c.out_height; ++oh, out += c.out_width)
    each_vector<T>(c.out_width, [&](int64_t ow, int64_t part) {
      Vec<T> sum = splat(bias);
      const T* tap = taps;
      for (int64_t r = 0; r < c.kernel_h; ++r) {
        const T* p = plane.row(padded, oh, ow, r);
        for (int64_t s = 0; s < c.kernel_w; ++s, p += c.dilation_w)
          sum += splat(*tap++) * tap_inputs<kUnitStride>(p, c.stride_w);
      }
      scatter(out + ow, 1, sum, part);
    });
}

// Σ over the outputs of dout · the input that tap (r, s) meets there; rows of dout lie `ld` apart, zeros behind them.
template <bool kUnitStride, class T>
T depthwise_tap_gradient(const PaddedPlane<T>& plane, const T* padded, const T* dout, int64_t ld, int64_t r,
                         int64_t s) {
  constexpr int64_t L = kLanes<T>;
  const Convolution& c = plane.c;
  Vec<T> sums[2] = {};
  for (int64_t oh = 0; oh < c.out_height; ++oh, dout += ld) {
    const T* const p = plane.row(padded, oh, 0, r) + s * c.dilation_w;
    Vec<T>& sum = sums[oh % 2];
    int64_t ow = 0;
    for (; ow + L <= c.out_width; ow += L)
      sum += load(dout + ow) * tap_inputs<kUnitStride>(p + ow * c.stride_w, c.stride_w);
    if (ow < c.out_width) {  // what lies behind the row may be infinite
      const Vec<T> inputs = tap_inputs<kUnitStride>(p + ow * c.stride_w, c.stride_w);
      sum += load(dout + ow) * (iota<T>() < splat(static_cast<T>(c.out_width - ow)) ? inputs : Vec<T>{});
    }
  }
  return reduce_sum<T>(sums[0] + sums[1]);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
