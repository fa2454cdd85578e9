// Which instruction set's kernels to use.
#pragma once

#include <vector>

#include "llmeff/device.h"

namespace llmeff::cpu {

struct Isa {
  const char* name;
  Kernels* kernels;
};

// Those that this binary has and this CPU runs, best first.
std::vector<Isa> usable_isas();

// The best that this binary has and this CPU runs, or what LLMEFF_CPU_ISA names. Throws Error(ERR_OPTION) if that is
// not to be had.
Kernels& best_kernels();

}  // namespace llmeff::cpu
