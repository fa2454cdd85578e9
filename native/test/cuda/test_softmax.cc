// Softmax and its relatives on the GPU.
#include "lab.h"

namespace llmeff::test {
namespace {

TEST(cuda_softmax) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    for (const int64_t n : {1, 2, 31, 33, 128, 1000, 5000}) {
      const Twin x = lab().uniform(dtype, {3, n}, 8);
      const Twin y(dtype, {3, n});
      lab().both([&](Kernels& kernels, auto side) { kernels.softmax(In{side(x)}, Out{side(y)}); });
      lab().expect("softmax of " + std::to_string(n), y, 8 * rounding(dtype));
    }
  }
}

}  // namespace
}  // namespace llmeff::test
