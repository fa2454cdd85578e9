#include "cpu_kernels.h"
#include "llmeff/error.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::max_pool2d(const In&, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const Out&, const Out&) {
  fail("ERR_INTERNAL", "max_pool2d is being written");
}

void CpuKernels::max_pool2d_grad(const In&, const In&, const Out&) {
  fail("ERR_INTERNAL", "max_pool2d_grad is being written");
}

void CpuKernels::avg_pool2d(const In&, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const Out&) {
  fail("ERR_INTERNAL", "avg_pool2d is being written");
}

void CpuKernels::avg_pool2d_grad(const In&, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const Out&) {
  fail("ERR_INTERNAL", "avg_pool2d_grad is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
