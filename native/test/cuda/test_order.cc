// argsort and top_k on the GPU.
#include "layouts.h"

namespace llmeff::test {
namespace {

constexpr DType kSorted[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16, DType::kI32};

// Few different numbers, so that there are ties.
Twin with_ties(DType dtype, const Shape& shape, Layout layout) {
  Twin x = laid(dtype, shape, layout);
  for (int64_t i = 0; i < x.capacity(); ++i) {
    const uint64_t draw = lab().random.bits();
    const double value = draw % 97 == 0   ? kNan
                         : draw % 89 == 0 ? -kInf
                         : draw % 83 == 0 ? -0.0
                         : draw % 2 == 0  ? static_cast<double>(draw >> 8 & 31) - 16
                                          : lab().random();
    if (is_floating(dtype))
      x.values()[i] = value;
    else
      x.integers()[i] = static_cast<int32_t>(draw >> 8 & 1023) - 512;
  }
  x.send(lab().cpu());
  return x;
}

TEST(cuda_argsort) {
  for (const DType dtype : kSorted)
    for (const Shape& shape : {Shape{1}, Shape{2}, Shape{3, 17}, Shape{200, 8}, Shape{33, 64}, Shape{5, 1000},
                               Shape{3, 2049}, Shape{4096}, Shape{4097}, Shape{2, 3, 5000}, Shape{100001}})
      for (const bool descending : {false, true}) {
        const Twin x = with_ties(dtype, shape, any_layout()), out(DType::kI32, shape);
        lab().both([&](Kernels& kernels, auto side) { kernels.argsort(In{side(x)}, descending, Out{side(out)}); });
        expect_near("argsort of " + text(shape), out, 0);
      }
}

TEST(cuda_top_k) {
  for (const DType dtype : kSorted)
    for (const Shape& shape : {Shape{1}, Shape{3, 17}, Shape{300, 8}, Shape{5, 1000}, Shape{4, 5000}, Shape{2, 60000}})
      for (const int64_t k : {1, 2, 8, 50, 1500})
        for (const bool largest : {false, true}) {
          if (k > shape.back()) continue;
          Shape to = shape;
          to.back() = k;
          const Twin x = with_ties(dtype, shape, any_layout()), out(DType::kI32, to);
          lab().both([&](Kernels& kernels, auto side) { kernels.top_k(In{side(x)}, largest, Out{side(out)}); });
          expect_near("top " + std::to_string(k) + " of " + text(shape), out, 0);
        }
}

}  // namespace
}  // namespace llmeff::test
