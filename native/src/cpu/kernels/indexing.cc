#include "cpu_kernels.h"
#include "llmeff/error.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::gather(const In&, const In&, int64_t, const Out&) {
  fail("ERR_INTERNAL", "gather is being written");
}

void CpuKernels::scatter_add(const In&, const In&, int64_t, const InOut&) {
  fail("ERR_INTERNAL", "scatter_add is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
