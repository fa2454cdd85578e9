// 2-d convolution on the GPU.
#include "lab.h"

namespace llmeff::test {
namespace {

struct Case2d {
  int64_t batch, channels, height, width, outputs, kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w,
      dilation_h, dilation_w, groups;
};

constexpr Case2d kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1},     {2, 3, 8, 9, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1},
    {3, 4, 7, 7, 6, 1, 1, 1, 1, 0, 0, 1, 1, 1},     {2, 4, 11, 6, 8, 3, 2, 2, 1, 1, 0, 1, 2, 2},
    {2, 6, 9, 9, 6, 3, 3, 1, 1, 1, 1, 1, 1, 6},     {3, 8, 10, 5, 8, 5, 3, 2, 3, 2, 1, 1, 1, 8},
    {1, 16, 1, 40, 4, 1, 7, 1, 1, 0, 6, 1, 2, 1},   {5, 3, 5, 5, 2, 5, 5, 1, 1, 0, 0, 1, 1, 1},
    {2, 4, 6, 6, 8, 3, 3, 1, 1, 1, 1, 1, 1, 4},     {2, 2, 3, 3, 3, 2, 2, 3, 3, 2, 2, 1, 1, 1},
    {4, 32, 16, 16, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1},
};

TEST(cuda_conv2d) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16})
    for (const Case2d& c : kCases)
      for (const bool biased : {false, true}) {
        const int64_t per_group = c.channels / c.groups;
        const auto positions = [](int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
          return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
        };
        const int64_t oh = positions(c.height, c.kernel_h, c.stride_h, c.padding_h, c.dilation_h),
                      ow = positions(c.width, c.kernel_w, c.stride_w, c.padding_w, c.dilation_w);
        const std::vector<int64_t> x_shape = {c.batch, c.channels, c.height, c.width},
                                   weight_shape = {c.outputs, per_group, c.kernel_h, c.kernel_w},
                                   out_shape = {c.batch, c.outputs, oh, ow};
        const Twin x = lab().uniform(dtype, x_shape), weight = lab().uniform(dtype, weight_shape),
                   bias = biased ? lab().uniform(dtype, {c.outputs}) : Twin(), dout = lab().uniform(dtype, out_shape);
        const Twin out(dtype, out_shape), dx(dtype, x_shape), dweight(dtype, weight_shape),
            dbias = biased ? Twin(dtype, {c.outputs}) : Twin();
        lab().both([&](Kernels& kernels, auto side) {
          kernels.conv2d(In{side(x)}, In{side(weight)}, In{side(bias)}, c.stride_h, c.stride_w, c.padding_h,
                         c.padding_w, c.dilation_h, c.dilation_w, c.groups, Out{side(out)});
          kernels.conv2d_grad(In{side(dout)}, In{side(x)}, In{side(weight)}, c.stride_h, c.stride_w, c.padding_h,
                              c.padding_w, c.dilation_h, c.dilation_w, c.groups, Out{side(dx)}, Out{side(dweight)},
                              Out{side(dbias)});
        });
        const std::string of = " of case " + std::to_string(&c - kCases);
        // Sums of products below 1: √terms in size.
        const double unit = dtype == DType::kF64 ? 0x1p-53 : 0x1p-24;
        const auto expect = [&](const char* what, const Twin& twin, int64_t terms) {
          const double n = static_cast<double>(terms);
          lab().expect(what + of, twin, rounding(dtype) + 2 * std::sqrt(n) * unit, std::sqrt(n));
        };
        expect("out", out, per_group * c.kernel_h * c.kernel_w + 1);
        expect("dx", dx, c.outputs / c.groups * c.kernel_h * c.kernel_w);
        expect("dweight", dweight, c.batch * oh * ow);
        if (biased) expect("dbias", dbias, c.batch * oh * ow);
      }
}

}  // namespace
}  // namespace llmeff::test
