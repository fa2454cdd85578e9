// Softmax and its relatives on the GPU.
#include "layouts.h"

namespace llmeff::test {
namespace {

using Forward = void (Kernels::*)(const In&, const Out&);
using Backward = void (Kernels::*)(const In&, const In&, const Out&);

void check(DType dtype, const Shape& shape, Layout layout, bool special) {
  const std::string of = " of " + text(shape) + " layout " + std::to_string(static_cast<int>(layout));
  const double length = static_cast<double>(shape.back());
  // The sum of a row has log2(n) roundings and more; y is at most 1, its logarithm as large as x.
  for (const auto& [name, forward] : {std::pair<const char*, Forward>{"softmax", &Kernels::softmax},
                                      std::pair<const char*, Forward>{"log_softmax", &Kernels::log_softmax}}) {
    Twin x = numbers(dtype, shape, layout, 8);
    if (special) {
      // A row of −∞, one with a NaN, one with ∞, one of −∞ but for an element.
      for (int64_t i = 0; i < 4 && i < x.host().shape[0]; ++i) {
        double* const row = static_cast<double*>(x.host().data) + i * x.host().strides[0];
        const int64_t n = shape.back(), step = x.host().stride(-1), middle = n / 2 * step;
        if (i == 0 || i == 3)
          for (int64_t j = 0; j < n; ++j) row[j * step] = -kInf;
        if (i != 0) row[middle] = i == 1 ? kNan : i == 2 ? kInf : 3;
      }
      x.send(lab().cpu());
    }
    const Twin y = laid(dtype, shape, layout);
    lab().both([&](Kernels& kernels, auto side) { (kernels.*forward)(In{side(x)}, Out{side(y)}); });
    expect_near(name + of, y, few_roundings(dtype, 24 + std::log2(length)));
  }
  for (const auto& [name, backward, scale] :
       {std::tuple<const char*, Backward, double>{"softmax_grad", &Kernels::softmax_grad, 0.5},
        std::tuple<const char*, Backward, double>{"log_softmax_grad", &Kernels::log_softmax_grad, 1}}) {
    const Twin y = numbers(dtype, shape, layout, scale, false, -scale), dy = numbers(dtype, shape, layout, 1);
    const Twin dx = laid(dtype, shape, layout);
    lab().both([&](Kernels& kernels, auto side) { (kernels.*backward)(In{side(y)}, In{side(dy)}, Out{side(dx)}); });
    // Σ over the row of products of size 1, whose roundings walk at random.
    expect_near(name + of, dx, few_roundings(dtype, 16), std::sqrt(length));
  }
}

TEST(cuda_softmax) {
  for (const DType dtype : kFloating)
    for (const int64_t n : {1, 2, 31, 33, 128, 512, 520, 1000, 2048, 5000, 8192, 16384})
      for (const Layout layout : {Layout::kContiguous, any_layout()})
        for (const bool special : {false, true}) check(dtype, {5, n}, layout, special);
}

TEST(cuda_softmax_long_rows) {
  for (const DType dtype : kFloating)
    for (const int64_t n : {16385, 16392, 50257, 65536})
      for (const bool special : {false, true}) check(dtype, {4, n}, Layout::kContiguous, special);
}

TEST(cuda_softmax_of_views) {
  for (const DType dtype : kFloating)
    for (const Shape& shape : {Shape{7, 3, 40}, Shape{2, 64, 100}, Shape{300, 17}, Shape{17, 300}, Shape{33}})
      for (const Layout layout : kLayouts) check(dtype, shape, layout, shape.size() == 2);
}

}  // namespace
}  // namespace llmeff::test
