#include "cpu_kernels.h"
#include "llmeff/error.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::dropout(const In&, double, int64_t, int64_t, const Out&) {
  fail("ERR_INTERNAL", "dropout is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
