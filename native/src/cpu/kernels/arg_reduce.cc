#include "cpu_kernels.h"
#include "llmeff/error.h"

namespace llmeff::cpu::LLMEFF_ISA {

void CpuKernels::arg_reduce(ReduceOp, const In&, const Out&) {
  fail("ERR_INTERNAL", "arg_reduce is being written");
}

}  // namespace llmeff::cpu::LLMEFF_ISA
