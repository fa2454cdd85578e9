// gather, scatter and scatter_add on the GPU.
#include "layouts.h"

namespace llmeff::test {
namespace {

struct Case {
  Shape large, small;  // sizes of x (or of scatter_add's out) and of the indices
  int64_t axis;
  unsigned runs;  // axes along which the indices are broadcast
};
const std::vector<Case> kCases = {{{1}, {1}, 0, 0},
                                  {{9}, {33}, 0, 0},
                                  {{50, 64}, {20, 64}, 0, 2},
                                  {{50, 7}, {20, 7}, 0, 2},
                                  {{50, 64}, {50, 1}, 1, 0},
                                  {{50, 64}, {50, 9}, 1, 0},
                                  {{50, 64}, {50, 200}, 1, 1},
                                  {{40, 33}, {70, 33}, 0, 0},
                                  {{4, 30, 16}, {4, 50, 16}, 1, 4},
                                  {{4, 30, 16}, {4, 50, 16}, 1, 5},
                                  {{4, 30, 16}, {4, 5, 16}, 1, 0},
                                  {{3, 5, 7}, {3, 5, 300}, 2, 0},
                                  {{100, 8}, {9000, 8}, 0, 2},
                                  {{17}, {20000}, 0, 0}};

Twin indices_of(const Case& c) {
  const Twin all = lab().integers(c.small, 0, static_cast<int32_t>(c.large[static_cast<size_t>(c.axis)]));
  return broadcast(all, c.runs);
}

TEST(cuda_gather) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kU8})
    for (const Case& c : kCases)
      for (const Layout layout : {Layout::kContiguous, any_layout()}) {
        const Twin x = numbers(dtype, c.large, layout, 100), indices = indices_of(c),
                   out = laid(dtype, c.small, layout);
        lab().both([&](Kernels& kernels, auto side) {
          kernels.gather(In{side(x)}, In{side(indices)}, c.axis, Out{side(out)});
        });
        expect_near("gather of " + text(c.small) + " along " + std::to_string(c.axis), out, 0);
      }
}

TEST(cuda_scatter) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kU8})
    for (const Case& c : kCases) {
      const size_t axis = static_cast<size_t>(c.axis);
      Shape some = c.small;
      some[axis] = std::min(c.small[axis], c.large[axis]);
      for (const Layout layout : {Layout::kContiguous, any_layout()}) {
        // The same targets in every list, none twice: from the last down.
        Twin indices(DType::kI32, some);
        int64_t inner = 1;
        for (size_t i = axis + 1; i < some.size(); ++i) inner *= some[i];
        for (int64_t i = 0; i < indices.host().size(); ++i)
          indices.integers()[i] = static_cast<int32_t>(c.large[axis] - 1 - i / inner % some[axis]);
        indices.send(lab().cpu());
        const Twin x = numbers(dtype, some, layout, 100), out = numbers(dtype, c.large, layout, 100);
        const Twin targets = broadcast(indices, c.runs);
        lab().both([&](Kernels& kernels, auto side) {
          kernels.scatter(In{side(x)}, In{side(targets)}, c.axis, InOut{side(out)});
        });
        expect_near("scatter of " + text(some) + " along " + std::to_string(c.axis), out, 0, 0);
      }
    }
}

TEST(cuda_scatter_add) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16, DType::kI32})
    for (const Case& c : kCases)
      for (const Layout layout : {Layout::kContiguous, any_layout()}) {
        const Twin x = numbers(dtype, c.small, layout, dtype == DType::kI32 ? 2e9 : 1), indices = indices_of(c);
        const Twin out = numbers(dtype, c.large, layout, dtype == DType::kI32 ? 2e9 : 1);
        lab().both([&](Kernels& kernels, auto side) {
          kernels.scatter_add(In{side(x)}, In{side(indices)}, c.axis, InOut{side(out)});
        });
        // In the CPU's order, but in float32: as many roundings as additions to a target, which walk at random.
        const double additions = static_cast<double>(c.small[static_cast<size_t>(c.axis)]);
        expect_near("scatter_add of " + text(c.small) + " along " + std::to_string(c.axis), out,
                    dtype == DType::kI32 ? 0 : few_roundings(dtype, 8), std::sqrt(additions));
      }
}

TEST(cuda_bad_indices) {
  Lab& l = lab();
  cuda::Context& context = l.context();
  for (const int32_t bad : {-1, 50, 1000000}) {
    Twin indices = l.integers({300}, 0, 50);
    const Twin x = numbers(DType::kF32, {50}, Layout::kContiguous, 1), out(DType::kF32, {300});
    indices.integers()[123] = indices.integers()[200] = bad;
    indices.send(l.cpu());
    const std::string words = "index " + std::to_string(bad) + " at position 123 ";
    context.begin("gather", 1, {});
    l.gpu().gather(In{x.device()}, In{indices.device()}, 0, Out{out.device()});
    const FailurePointer of_gather = context.end();
    LLMEFF_CUDA(cudaStreamSynchronize(context.stream));
    context.settle(*of_gather);
    CHECK(of_gather->state == Failure::State::kFailed && of_gather->message.find(words) != std::string::npos,
          "gather of %d: %s", bad, of_gather->message.c_str());
    // The sum in place is not touched, nor by the next call that depends on it.
    const Twin sums = numbers(DType::kF32, {50}, Layout::kContiguous, 1);
    const Twin more = numbers(DType::kF32, {300}, Layout::kContiguous, 1), good = l.integers({300}, 0, 50);
    context.begin("scatterAdd", 2, {});
    l.gpu().scatter_add(In{more.device()}, In{indices.device()}, 0, InOut{sums.device()});
    const FailurePointer first = context.end();
    context.begin("scatterAdd", 3, {first});
    l.gpu().scatter_add(In{more.device()}, In{good.device()}, 0, InOut{sums.device()});
    const FailurePointer second = context.end();
    LLMEFF_CUDA(cudaStreamSynchronize(context.stream));
    context.settle(*first);
    context.settle(*second);
    CHECK(first->state == Failure::State::kFailed && first->message.find(words) != std::string::npos,
          "scatter_add of %d: %s", bad, first->message.c_str());
    CHECK(second->state == Failure::State::kPassed, "%s", second->message.c_str());
    expect_near("sums after a bad index", sums, 0, 0);
  }
}

}  // namespace
}  // namespace llmeff::test
