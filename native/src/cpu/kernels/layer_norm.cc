#include "cpu_kernels.h"
#include "llmeff/error.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::layer_norm(const In&, const In&, const In&, double, const Out&, const Out&, const Out&) {
  fail("ERR_INTERNAL", "layer_norm is being written");
}

void CpuKernels::layer_norm_grad(const In&, const In&, const In&, const In&, const In&, const Out&, const Out&,
                                 const Out&) {
  fail("ERR_INTERNAL", "layer_norm_grad is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
