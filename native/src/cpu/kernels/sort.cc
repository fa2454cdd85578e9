#include "cpu_kernels.h"
#include "llmeff/error.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::argsort(const In&, bool, const Out&) {
  fail("ERR_INTERNAL", "argsort is being written");
}

void CpuKernels::top_k(const In&, bool, const Out&) {
  fail("ERR_INTERNAL", "top_k is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
