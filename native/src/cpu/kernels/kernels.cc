#include "cpu_kernels.h"

namespace llmeff::cpu::LLMEFF_ISA {

Kernels& kernels() {
  // Never destroyed: work may still be running while the process exits.
  static CpuKernels& instance = *new CpuKernels();
  return instance;
}

}  // namespace llmeff::cpu::LLMEFF_ISA
