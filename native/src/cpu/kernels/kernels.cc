#include "cpu_kernels.h"

namespace llmeff::cpu::LLMEFF_ISA {

Kernels& kernels() {
  static CpuKernels instance;
  return instance;
}

}  // namespace llmeff::cpu::LLMEFF_ISA
