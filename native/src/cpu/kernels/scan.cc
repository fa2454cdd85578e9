#include "cpu_kernels.h"
#include "llmeff/error.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::cumsum(const In&, int64_t, bool, const Out&) {
  fail("ERR_INTERNAL", "cumsum is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
