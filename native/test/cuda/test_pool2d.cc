// Pooling on the GPU.
#include "layouts.h"

namespace llmeff::test {
namespace {

struct Case {
  Shape x;
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
};
const std::vector<Case> kCases = {{{1, 1, 1, 1}, 1, 1, 1, 1, 0, 0},   {{2, 3, 8, 8}, 2, 2, 2, 2, 0, 0},
                                  {{2, 3, 9, 7}, 3, 3, 2, 2, 1, 1},   {{1, 5, 13, 11}, 3, 2, 1, 3, 1, 0},
                                  {{2, 2, 70, 75}, 3, 3, 1, 1, 1, 1}, {{3, 4, 6, 6}, 6, 6, 6, 6, 0, 0}};

Shape pooled(const Case& c) {
  return {c.x[0], c.x[1], (c.x[2] + 2 * c.padding_h - c.kernel_h) / c.stride_h + 1,
          (c.x[3] + 2 * c.padding_w - c.kernel_w) / c.stride_w + 1};
}

TEST(cuda_pool2d) {
  for (const DType dtype : kFloating)
    for (const Case& c : kCases) {
      const Shape to = pooled(c);
      // Few different numbers, for ties, and a NaN and infinities.
      Twin x(dtype, c.x);
      for (int64_t i = 0; i < x.capacity(); ++i)
        x.values()[i] = i % 41 == 40 ? kNan : i % 37 == 36 ? -kInf : static_cast<double>(lab().random.bits() % 8);
      x.send(lab().cpu());
      const Twin out(dtype, to), indices(DType::kI32, to);
      lab().both([&](Kernels& kernels, auto side) {
        kernels.max_pool2d(In{side(x)}, c.kernel_h, c.kernel_w, c.stride_h, c.stride_w, c.padding_h, c.padding_w,
                           Out{side(out)}, Out{side(indices)});
      });
      expect_near("max_pool2d of " + text(c.x), out, 0);
      expect_near("winners of " + text(c.x), indices, 0);
      const Twin dout = numbers(dtype, to, Layout::kContiguous, 1), dx(dtype, c.x);
      lab().both([&](Kernels& kernels, auto side) {
        kernels.max_pool2d_grad(In{side(dout)}, In{side(indices)}, Out{side(dx)});
      });
      const double windows = static_cast<double>(c.kernel_h * c.kernel_w);
      expect_near("max_pool2d_grad of " + text(c.x), dx, few_roundings(dtype, windows));

      const Twin y = numbers(dtype, c.x, Layout::kContiguous, 1), mean(dtype, to), dy(dtype, c.x);
      lab().both([&](Kernels& kernels, auto side) {
        kernels.avg_pool2d(In{side(y)}, c.kernel_h, c.kernel_w, c.stride_h, c.stride_w, c.padding_h, c.padding_w,
                           Out{side(mean)});
        kernels.avg_pool2d_grad(In{side(dout)}, c.kernel_h, c.kernel_w, c.stride_h, c.stride_w, c.padding_h,
                                c.padding_w, Out{side(dy)});
      });
      expect_near("avg_pool2d of " + text(c.x), mean, few_roundings(dtype, windows));
      expect_near("avg_pool2d_grad of " + text(c.x), dy, few_roundings(dtype, windows));
    }
}

}  // namespace
}  // namespace llmeff::test
