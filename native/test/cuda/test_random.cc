// random and dropout on the GPU: the CPU's numbers.
#include "layouts.h"

namespace llmeff::test {
namespace {

// The host's array has the dtype itself here, for the numbers depend on it.
template <class T>
void check_random(Distribution distribution, const Shape& shape, Layout layout, int64_t seed, int64_t stream) {
  const DType dtype = sizeof(T) == 8 ? DType::kF64 : DType::kF32;
  const Twin out = laid(dtype, shape, layout);
  std::vector<T> memory(static_cast<size_t>(out.capacity()));
  View host = out.device();
  host.data = memory.data() + (static_cast<const T*>(out.host().data) != nullptr
                                   ? (static_cast<const double*>(out.host().data) - const_cast<Twin&>(out).values())
                                   : 0);
  lab().cpu().random(distribution, seed, stream, Out{host});
  lab().gpu().random(distribution, seed, stream, Out{out.device()});
  LLMEFF_CUDA(cudaStreamSynchronize(lab().context().stream));
  const std::vector<double> got = out.received(lab().cpu());
  for (int64_t i = 0; i < out.host().size(); ++i) {
    int64_t at = static_cast<T*>(host.data) - memory.data(), rest = i;
    for (int axis = host.rank - 1; axis >= 0; --axis) {
      at += rest % host.shape[axis] * host.strides[axis];
      rest /= host.shape[axis];
    }
    const double want = static_cast<double>(memory[static_cast<size_t>(at)]);
    const bool equal = distribution == Distribution::kUniform
                           ? got[static_cast<size_t>(at)] == want
                           : close(got[static_cast<size_t>(at)], want, 8 * rounding(dtype));
    CHECK(equal, "%s distribution %d of %s: element %lld is %.17g, not %.17g", name_of(dtype),
          static_cast<int>(distribution), text(shape).c_str(), static_cast<long long>(i), got[static_cast<size_t>(at)],
          want);
  }
}

TEST(cuda_random) {
  for (const Distribution distribution : {Distribution::kUniform, Distribution::kNormal})
    for (const Shape& shape :
         {Shape{1}, Shape{2}, Shape{3}, Shape{4}, Shape{5}, Shape{1027}, Shape{7, 33}, Shape{100000}})
      for (const Layout layout : kLayouts) {
        check_random<float>(distribution, shape, layout, 0x123456789ABCDEF0, -5);
        check_random<double>(distribution, shape, layout, -3, 0x1234567890);
      }
}

TEST(cuda_dropout) {
  for (const DType dtype : kFloating)
    for (const Shape& shape : {Shape{1}, Shape{4099}, Shape{7, 33}, Shape{64, 64}})
      for (const Layout layout : kLayouts)
        for (const double rate : {0.0, 0.1, 0.5}) {
          const Twin x = numbers(dtype, shape, layout, 3, true), out = laid(dtype, shape, any_layout());
          lab().both([&](Kernels& kernels, auto side) { kernels.dropout(In{side(x)}, rate, 77, 5, Out{side(out)}); });
          expect_near("dropout of " + text(shape), out, few_roundings(dtype, 4));
        }
}

}  // namespace
}  // namespace llmeff::test
