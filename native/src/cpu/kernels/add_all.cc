// Sums of many arrays.
#include "cpu_kernels.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::add_all(const List<In>& xs, const Out& out) {
  if (xs.size == 1) return copy(xs[0], out);
  binary(BinaryOp::kAdd, xs[0], xs[1], out);
  for (int64_t i = 2; i < xs.size; ++i) binary(BinaryOp::kAdd, In{out}, xs[i], out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
