// reduce, arg_reduce and cumsum on the GPU.
#include "layouts.h"

namespace llmeff::test {
namespace {

Shape reduced(const Shape& shape, unsigned axes) {
  Shape to = shape;
  for (size_t axis = 0; axis < shape.size(); ++axis)
    if (axes >> axis & 1u) to[axis] = 1;
  return to;
}

// Sums over `length` elements of size 1: every rounding of a partial sum is like a step of a random walk.
double magnitude_of(ReduceOp op, double length) {
  return op == ReduceOp::kSum ? std::sqrt(length) : 1;
}

void check_reduce(DType dtype, const Shape& shape, unsigned axes, Layout layout, bool nans) {
  const Shape to = reduced(shape, axes);
  const double length = static_cast<double>(product(shape)) / static_cast<double>(product(to));
  for (int index = 0; index < kReduceOpCount; ++index) {
    const ReduceOp op = static_cast<ReduceOp>(index);
    // Of products numbers near 1, so that something is left.
    Twin x = numbers(dtype, shape, layout, op == ReduceOp::kProd ? 0.1 : 1, false, op == ReduceOp::kProd ? 1 : 0);
    if (nans) {
      x.values()[static_cast<int64_t>(lab().random.bits() % static_cast<uint64_t>(x.capacity()))] = kNan;
      x.values()[static_cast<int64_t>(lab().random.bits() % static_cast<uint64_t>(x.capacity()))] = -kInf;
      x.send(lab().cpu());
    }
    const Twin out = laid(dtype, to, any_layout());
    lab().both([&](Kernels& kernels, auto side) { kernels.reduce(op, In{side(x)}, Out{side(out)}); });
    expect_near("reduce " + std::to_string(index) + " of " + text(shape) + " axes " + std::to_string(axes) +
                    " layout " + std::to_string(static_cast<int>(layout)),
                out, few_roundings(dtype, 16), magnitude_of(op, length));
  }
}

TEST(cuda_reduce_small) {
  const std::vector<Shape> shapes = {{1},       {17},       {5, 7},      {130, 3},       {3, 130},   {16, 64}, {64, 16},
                                     {3, 5, 9}, {4, 8, 32}, {33, 2, 70}, {2, 17, 3, 40}, {1, 33, 1}, {}};
  for (const DType dtype : kFloating)
    for (const Shape& shape : shapes)
      for (unsigned axes = 0; axes < 1u << shape.size(); ++axes) {
        check_reduce(dtype, shape, axes, Layout::kContiguous, axes % 2 == 1);
        check_reduce(dtype, shape, axes, any_layout(), false);
      }
}

TEST(cuda_reduce_large) {
  const std::vector<std::pair<Shape, unsigned>> cases = {
      {{300001}, 1},    {{524288}, 1},     {{5000, 8}, 1},    {{5000, 40}, 1}, {{3000, 256}, 1},
      {{777, 1001}, 1}, {{777, 1001}, 2},  {{700, 1024}, 3},  {{2, 70000}, 2}, {{40, 5000}, 2},
      {{3000, 96}, 2},  {{64, 40, 96}, 5}, {{64, 40, 96}, 2}, {{20000, 5}, 2}};
  for (const DType dtype : kFloating)
    for (const auto& [shape, axes] : cases) {
      check_reduce(dtype, shape, axes, Layout::kContiguous, false);
      check_reduce(dtype, shape, axes, any_layout(), true);
    }
}

// About a mean that is large beside the deviation: a one-pass Σx² − (Σx)² has nothing left of it in float32.
TEST(cuda_variance_off_centre) {
  for (const DType dtype : {DType::kF32, DType::kF64})
    for (const auto& [shape, axes] :
         std::vector<std::pair<Shape, unsigned>>{{{100000}, 1}, {{50, 3000}, 2}, {{3000, 50}, 1}}) {
      const Twin x = numbers(dtype, shape, Layout::kContiguous, 1, false, 1000), out(dtype, reduced(shape, axes));
      lab().both(
          [&](Kernels& kernels, auto side) { kernels.reduce(ReduceOp::kVariance, In{side(x)}, Out{side(out)}); });
      // Means of parts are merged in float64, where they have roundings of the size of the mean.
      expect_near("variance of " + text(shape), out, 16 * (dtype == DType::kF64 ? 1000 : 1) * rounding(dtype));
    }
}

TEST(cuda_log_sum_exp_of_infinities) {
  for (const DType dtype : kFloating)
    for (const int64_t n : {3, 100, 70000}) {
      Twin x(dtype, {4, n});
      for (int64_t i = 0; i < 4 * n; ++i) {
        const int64_t row = i / n;
        x.values()[i] = row == 0 ? -kInf : row == 1 && i % n == n / 2 ? kInf : row == 2 ? 1e4 * lab().random() : -kInf;
      }
      x.values()[3 * n] = -1e4;
      x.send(lab().cpu());
      const Twin out(dtype, {4, 1});
      lab().both(
          [&](Kernels& kernels, auto side) { kernels.reduce(ReduceOp::kLogSumExp, In{side(x)}, Out{side(out)}); });
      expect_near("log-sum-exp of " + std::to_string(n), out, few_roundings(dtype, 16));
    }
}

TEST(cuda_reduce_integers) {
  for (const DType dtype : {DType::kI32, DType::kU8, DType::kBool})
    for (const ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin})
      for (const auto& [shape, axes] : std::vector<std::pair<Shape, unsigned>>{
               {{1}, 1}, {{33, 65}, 1}, {{33, 65}, 2}, {{100000}, 1}, {{5000, 3}, 1}}) {
        const Twin x = numbers(dtype, shape, Layout::kContiguous, 2e9), out(dtype, reduced(shape, axes));
        lab().both([&](Kernels& kernels, auto side) { kernels.reduce(op, In{side(x)}, Out{side(out)}); });
        expect_near("reduce " + std::to_string(static_cast<int>(op)) + " of " + text(shape), out, 0);
      }
}

// The same numbers in the same order give the same bits.
TEST(cuda_reduce_repeats) {
  const Twin x = numbers(DType::kF32, {1000, 1003}, Layout::kContiguous, 1);
  for (const unsigned axes : {1u, 2u, 3u}) {
    std::vector<double> first;
    for (int run = 0; run < 3; ++run) {
      const Twin out(DType::kF32, reduced({1000, 1003}, axes));
      lab().context().begin("test", 1, {});
      lab().gpu().reduce(ReduceOp::kSum, In{x.device()}, Out{out.device()});
      LLMEFF_CUDA(cudaStreamSynchronize(lab().context().stream));
      const std::vector<double> got = out.received(lab().cpu());
      if (run == 0) first = got;
      CHECK(got == first, "axes %u, run %d", axes, run);
    }
  }
}

TEST(cuda_arg_reduce) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16, DType::kI32})
    for (const ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin})
      for (const Shape& shape : {Shape{1}, Shape{33}, Shape{5, 7}, Shape{64, 128}, Shape{3, 5, 1}, Shape{2, 3, 70000},
                                 Shape{4000, 9}, Shape{200000}, Shape{7, 5000}})
        // Few different numbers, so that there are ties; in a second round NaN and infinities too.
        for (int round = 0; round < 3; ++round) {
          Twin x = numbers(dtype, shape, round == 2 ? Layout::kReversed : any_layout(), 100, false);
          if (is_floating(dtype)) {
            for (int64_t i = 0; i < x.capacity(); ++i) {
              const uint64_t draw = lab().random.bits();
              x.values()[i] = round == 1 && draw % 50 == 0 ? kNan
                              : draw % 60 == 0             ? -kInf
                                                           : static_cast<double>(draw >> 8 & 7);
            }
            x.send(lab().cpu());
          }
          Shape rows(shape.begin(), shape.end() - 1);
          const Twin out(DType::kI32, rows);
          lab().both([&](Kernels& kernels, auto side) { kernels.arg_reduce(op, In{side(x)}, Out{side(out)}); });
          expect_near("arg_reduce " + std::to_string(static_cast<int>(op)) + " of " + text(shape), out, 0);
        }
}

TEST(cuda_cumsum) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16, DType::kI32})
    for (const Shape& shape : {Shape{1}, Shape{127}, Shape{129}, Shape{5, 40}, Shape{3, 7, 9}, Shape{50000},
                               Shape{3, 9000}, Shape{9000, 3}, Shape{300, 70}, Shape{40, 3, 200}})
      for (int64_t axis = 0; axis < static_cast<int64_t>(shape.size()); ++axis)
        for (const bool reverse : {false, true}) {
          const Twin x = numbers(dtype, shape, any_layout(), dtype == DType::kI32 ? 2e9 : 1),
                     out = laid(dtype, shape, any_layout());
          lab().both([&](Kernels& kernels, auto side) { kernels.cumsum(In{side(x)}, axis, reverse, Out{side(out)}); });
          // float32 is added up in float64: one rounding. float64 itself has another order than the CPU's.
          const double length = static_cast<double>(shape[static_cast<size_t>(axis)]);
          const bool wide = dtype == DType::kF64;
          expect_near("cumsum of " + text(shape) + " along " + std::to_string(axis), out,
                      dtype == DType::kI32 ? 0 : (wide ? 4 : 2.1) * rounding(dtype), wide ? length : 0);
        }
}

}  // namespace
}  // namespace llmeff::test
