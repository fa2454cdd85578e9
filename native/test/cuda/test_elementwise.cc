// unary, unary_grad and binary on the GPU.
#include "layouts.h"

namespace llmeff::test {
namespace {

const std::vector<Shape> kShapes = {{1}, {31}, {4099}, {16, 33}, {5, 64}, {3, 2, 24}, {}};

bool is_test(UnaryOp op) {
  return op == UnaryOp::kIsFinite || op == UnaryOp::kIsNan || op == UnaryOp::kLogicalNot;
}

TEST(cuda_unary) {
  for (int index = 0; index < kUnaryOpCount; ++index) {
    const UnaryOp op = static_cast<UnaryOp>(index);
    if (op == UnaryOp::kLogicalNot) continue;
    for (const DType dtype : kFloating)
      for (const Shape& shape : kShapes)
        for (const Layout layout : {Layout::kContiguous, any_layout()}) {
          const Twin x = numbers(dtype, shape, layout, 3, true);
          const Twin out = laid(is_test(op) ? DType::kBool : dtype, shape, layout);
          lab().both([&](Kernels& kernels, auto side) { kernels.unary(op, In{side(x)}, Out{side(out)}); });
          expect_near("unary " + std::to_string(index) + " of " + text(shape), out, few_roundings(dtype, 16));
        }
  }
}

TEST(cuda_unary_integers) {
  for (const UnaryOp op : {UnaryOp::kNeg, UnaryOp::kAbs, UnaryOp::kSquare, UnaryOp::kSign}) {
    const Twin x = numbers(DType::kI32, {5, 33}, Layout::kReversed, 2e9), out(DType::kI32, {5, 33});
    lab().both([&](Kernels& kernels, auto side) { kernels.unary(op, In{side(x)}, Out{side(out)}); });
    expect_near("unary " + std::to_string(static_cast<int>(op)), out, 0);
  }
  const Twin x = numbers(DType::kBool, {5, 33}, Layout::kReversed, 1), out(DType::kBool, {5, 33});
  lab().both([&](Kernels& kernels, auto side) { kernels.unary(UnaryOp::kLogicalNot, In{side(x)}, Out{side(out)}); });
  expect_near("logical not", out, 0);
}

TEST(cuda_unary_grad) {
  for (int index = 0; index <= static_cast<int>(UnaryOp::kSoftplus); ++index) {
    const UnaryOp op = static_cast<UnaryOp>(index);
    if (op == UnaryOp::kIsFinite) continue;
    for (const DType dtype : kFloating)
      for (const Shape& shape : kShapes)
        for (const Layout layout : {Layout::kContiguous, any_layout()}) {
          const Twin x = numbers(dtype, shape, layout, 3, true), dy = numbers(dtype, shape, layout, 1);
          const Twin dx = laid(dtype, shape, layout);
          lab().both(
              [&](Kernels& kernels, auto side) { kernels.unary_grad(op, In{side(x)}, In{side(dy)}, Out{side(dx)}); });
          expect_near("unary_grad " + std::to_string(index) + " of " + text(shape), dx, few_roundings(dtype, 32));
        }
  }
}

bool is_test(BinaryOp op) {
  return (op >= BinaryOp::kEqual && op <= BinaryOp::kGreaterEqual) || op >= BinaryOp::kLogicalAnd;
}

TEST(cuda_binary) {
  for (int index = 0; index < static_cast<int>(BinaryOp::kLogicalAnd); ++index) {
    const BinaryOp op = static_cast<BinaryOp>(index);
    for (const DType dtype : kFloating)
      for (const Shape& shape : kShapes)
        // b as it is, a row, a column, one number; or a column as a.
        for (int kind = 0; kind < 6; ++kind) {
          const unsigned last = shape.empty() ? 0 : 1u << (shape.size() - 1);
          const unsigned axes = kind == 2 ? ~last : kind == 3 ? last : kind == 4 ? ~0u : 0;
          const Layout layout = kind == 1 ? any_layout() : Layout::kContiguous;
          const Twin a = broadcast(numbers(dtype, shape, Layout::kContiguous, 2, true), kind == 5 ? last : 0u);
          const Twin b = kind == 1 ? numbers(dtype, shape, layout, 2, true)
                                   : broadcast(numbers(dtype, shape, layout, 2, true), axes);
          const Twin out = laid(is_test(op) ? DType::kBool : dtype, shape, layout);
          lab().both(
              [&](Kernels& kernels, auto side) { kernels.binary(op, In{side(a)}, In{side(b)}, Out{side(out)}); });
          expect_near("binary " + std::to_string(index) + " of " + text(shape) + " kind " + std::to_string(kind), out,
                      few_roundings(dtype, 16));
        }
  }
}

TEST(cuda_binary_integers) {
  for (int index = 0; index < static_cast<int>(BinaryOp::kLogicalAnd); ++index) {
    const BinaryOp op = static_cast<BinaryOp>(index);
    if (op == BinaryOp::kAtan2 || op == BinaryOp::kLogAddExp) continue;
    for (const double scale : {4.0, 100.0, 2e9}) {
      const Twin a = numbers(DType::kI32, {40, 33}, Layout::kContiguous, scale),
                 b = numbers(DType::kI32, {40, 33}, Layout::kReversed, scale < 10 ? scale : 100),
                 out(is_test(op) ? DType::kBool : DType::kI32, {40, 33});
      lab().both([&](Kernels& kernels, auto side) { kernels.binary(op, In{side(a)}, In{side(b)}, Out{side(out)}); });
      expect_near("binary " + std::to_string(index), out, 0);
    }
  }
}

TEST(cuda_logical) {
  for (const BinaryOp op : {BinaryOp::kLogicalAnd, BinaryOp::kLogicalOr, BinaryOp::kLogicalXor}) {
    const Twin a = numbers(DType::kBool, {7, 33}, Layout::kContiguous, 1),
               b = numbers(DType::kBool, {7, 33}, Layout::kReversed, 1), out(DType::kBool, {7, 33});
    lab().both([&](Kernels& kernels, auto side) { kernels.binary(op, In{side(a)}, In{side(b)}, Out{side(out)}); });
    expect_near("logical " + std::to_string(static_cast<int>(op)), out, 0);
  }
}

}  // namespace
}  // namespace llmeff::test
