#include "cpu_kernels.h"
#include "llmeff/error.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::conv2d(const In&, const In&, const In&, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                        const Out&) {
  fail("ERR_INTERNAL", "conv2d is being written");
}

void CpuKernels::conv2d_grad(const In&, const In&, const In&, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                             int64_t, const Out&, const Out&, const Out&) {
  fail("ERR_INTERNAL", "conv2d_grad is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
