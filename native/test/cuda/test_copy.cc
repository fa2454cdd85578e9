// copy, fill and where on the GPU.
#include "layouts.h"

namespace llmeff::test {
namespace {

const std::vector<Shape> kShapes = {{1},      {3},       {17},       {1000},         {5, 7},  {64, 64},
                                    {67, 70}, {3, 9, 8}, {4, 1, 33}, {2, 17, 3, 40}, {70000}, {16, 3, 64}};
constexpr DType kAll[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16, DType::kI32, DType::kU8, DType::kBool};

TEST(cuda_copy_layouts) {
  for (const DType dtype : kAll)
    for (const Shape& shape : kShapes)
      for (const Layout from : kLayouts) {
        const Twin x = numbers(dtype, shape, from, 100, true), out = laid(dtype, shape, any_layout());
        lab().both([&](Kernels& kernels, auto side) { kernels.copy(In{side(x)}, Out{side(out)}); });
        expect_near("copy of " + text(shape) + " layout " + std::to_string(static_cast<int>(from)), out, 0);
      }
}

TEST(cuda_copy_converts) {
  for (const DType from : kAll)
    for (const DType to : kAll)
      for (const Shape& shape : {Shape{1}, Shape{1029}, Shape{8, 64}, Shape{5, 9}}) {
        // Beyond the ends of the integers, and between numbers of 16 bits.
        for (const double scale : {3.0, 300.0, 1e10}) {
          const Twin x = numbers(from, shape, any_layout(), std::fmin(scale, is_floating(from) ? kInf : 2e9), true),
                     out = laid(to, shape, any_layout());
          lab().both([&](Kernels& kernels, auto side) { kernels.copy(In{side(x)}, Out{side(out)}); });
          expect_near(std::string("copy from ") + name_of(from), out, 0);
        }
      }
}

// Between two 16-bit numbers and next to the middle, where rounding twice would show.
TEST(cuda_copy_rounds_once) {
  for (const DType to : {DType::kBF16, DType::kF16}) {
    Twin x(DType::kF64, {4096});
    for (int64_t i = 0; i < 4096; ++i)
      x.values()[i] = (1 + static_cast<double>(i / 4) * rounding(to)) + (static_cast<double>(i % 4) - 1.5) * 0x1p-40;
    x.send(lab().cpu());
    const Twin out(to, {4096});
    lab().both([&](Kernels& kernels, auto side) { kernels.copy(In{side(x)}, Out{side(out)}); });
    expect_near("copy of float64", out, 0);
  }
}

TEST(cuda_copy_broadcast_and_permuted) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64, DType::kU8}) {
    const Twin x = numbers(dtype, {6, 40, 72}, Layout::kContiguous, 100);
    for (unsigned axes = 0; axes < 8; ++axes) {
      const Twin seen = broadcast(x, axes), out(dtype, {6, 40, 72});
      lab().both([&](Kernels& kernels, auto side) { kernels.copy(In{side(seen)}, Out{side(out)}); });
      expect_near("copy broadcast along " + std::to_string(axes), out, 0);
    }
    const int orders[][3] = {{0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (const auto& order : orders) {
      Shape shape, strides;
      for (const int axis : order) shape.push_back(x.host().shape[axis]), strides.push_back(x.host().strides[axis]);
      const Twin seen = x.as(shape, strides), out(dtype, shape);
      lab().both([&](Kernels& kernels, auto side) { kernels.copy(In{side(seen)}, Out{side(out)}); });
      expect_near("copy permuted to " + text(shape), out, 0);
    }
  }
}

TEST(cuda_copy_pinned_memory) {
  float* pinned = nullptr;
  LLMEFF_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&pinned), 60 * 70 * sizeof(float), cudaHostAllocDefault));
  for (int i = 0; i < 60 * 70; ++i) pinned[i] = static_cast<float>(i);
  const View host = row_major(pinned, DType::kF32, {60, 70});
  View turned = host;
  turned.shape[0] = 70, turned.shape[1] = 60, turned.strides[0] = 1, turned.strides[1] = 70;
  Twin there(DType::kF32, {60, 70}), across(DType::kF32, {70, 60}), wide(DType::kF64, {60, 70});
  lab().context().begin("test", 1, {});
  lab().gpu().copy(In{host}, Out{there.device()});
  lab().gpu().copy(In{turned}, Out{across.device()});
  lab().gpu().copy(In{host}, Out{wide.device()});
  LLMEFF_CUDA(cudaStreamSynchronize(lab().context().stream));
  const std::vector<double> a = there.received(lab().cpu()), b = across.received(lab().cpu()),
                            c = wide.received(lab().cpu());
  for (size_t i = 0; i < 60 * 70; ++i) {
    CHECK(a[i] == static_cast<double>(i) && c[i] == static_cast<double>(i), "element %zu is %g, %g", i, a[i], c[i]);
    CHECK(b[i] == static_cast<double>(i % 60 * 70 + i / 60), "turned element %zu is %g", i, b[i]);
  }
  for (int i = 0; i < 60 * 70; ++i) pinned[i] = -1;
  lab().gpu().copy(In{across.device()}, Out{turned});
  LLMEFF_CUDA(cudaStreamSynchronize(lab().context().stream));
  for (int i = 0; i < 60 * 70; ++i)
    CHECK(pinned[i] == static_cast<float>(i), "back: element %d is %g", i, static_cast<double>(pinned[i]));
  LLMEFF_CUDA(cudaFreeHost(pinned));
}

TEST(cuda_fill) {
  for (const DType dtype : kAll)
    for (const Shape& shape : kShapes)
      for (const double value : {0.0, 1.25, -2.0, 300.7, 1e39, kNan}) {
        const Twin out = laid(dtype, shape, any_layout());
        lab().both([&](Kernels& kernels, auto side) { kernels.fill(value, Out{side(out)}); });
        expect_near("fill of " + text(shape) + " with " + std::to_string(value), out, 0);
      }
}

TEST(cuda_where) {
  for (const DType dtype : kAll)
    for (const Shape& shape : kShapes)
      for (const unsigned axes : {0u, 1u, 2u, ~0u}) {
        const Twin condition = numbers(DType::kBool, shape, any_layout(), 1);
        const Twin a = numbers(dtype, shape, any_layout(), 100, true);
        const Twin b = broadcast(numbers(dtype, shape, Layout::kContiguous, 100), axes);
        const Twin out = laid(dtype, shape, any_layout());
        lab().both([&](Kernels& kernels, auto side) {
          kernels.where(In{side(condition)}, In{side(a)}, In{side(b)}, Out{side(out)});
        });
        expect_near("where of " + text(shape), out, 0);
        const Twin plain = numbers(DType::kBool, shape, Layout::kContiguous, 1), plain_out(dtype, shape);
        const Twin plain_a = numbers(dtype, shape, Layout::kContiguous, 100);
        lab().both([&](Kernels& kernels, auto side) {
          kernels.where(In{side(plain)}, In{side(plain_a)}, In{side(b)}, Out{side(plain_out)});
        });
        expect_near("where in packs of " + text(shape), plain_out, 0);
      }
}

}  // namespace
}  // namespace llmeff::test
