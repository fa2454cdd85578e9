#include "cpu/dispatch.h"

#include <cstdlib>
#include <cstring>

#include "llmeff/error.h"

#define LLMEFF_DECLARE_ISA(isa) \
  namespace llmeff::cpu::isa {  \
  Kernels& kernels();           \
  }
#ifdef LLMEFF_HAS_GENERIC
LLMEFF_DECLARE_ISA(generic)
#endif
#ifdef LLMEFF_HAS_AVX2
LLMEFF_DECLARE_ISA(avx2)
#endif
#ifdef LLMEFF_HAS_AVX512
LLMEFF_DECLARE_ISA(avx512)
#endif
#ifdef LLMEFF_HAS_NEON
LLMEFF_DECLARE_ISA(neon)
#endif

namespace llmeff {
namespace {

struct Candidate {
  const char* name;
  bool (*supported)();
  Kernels& (*kernels)();
};

// Best first.
constexpr Candidate kCandidates[] = {
#ifdef LLMEFF_HAS_AVX512
    {"avx512",
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
     },
     cpu::avx512::kernels},
#endif
#ifdef LLMEFF_HAS_AVX2
    {"avx2",
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); },
     cpu::avx2::kernels},
#endif
#ifdef LLMEFF_HAS_NEON
    {"neon", [] { return true; }, cpu::neon::kernels},
#endif
#ifdef LLMEFF_HAS_GENERIC
    {"generic", [] { return true; }, cpu::generic::kernels},
#endif
};

std::vector<std::string> available() {
  std::vector<std::string> names;
  for (const cpu::Isa& isa : cpu::usable_isas()) names.push_back(isa.name);
  return names;
}

cpu::Isa choose() {
  const char* wanted = std::getenv("LLMEFF_CPU_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  for (const cpu::Isa& isa : cpu::usable_isas())
    if (any || std::strcmp(isa.name, wanted) == 0) return isa;
  std::string names;
  for (const std::string& name : available()) names += (names.empty() ? "" : ", ") + name;
  throw Error("ERR_OPTION",
              "[LLMEFF_CPU_ISA] expected one of " + names + "; received \"" + wanted + "\". Unset it to use the best.");
}

// The environment is read once: the kernels in use don't change with it later.
const cpu::Isa& chosen() {
  static const cpu::Isa isa = choose();
  return isa;
}

}  // namespace

namespace cpu {
std::vector<Isa> usable_isas() {
  std::vector<Isa> usable;
  for (const Candidate& candidate : kCandidates)
    if (candidate.supported()) usable.push_back({candidate.name, &candidate.kernels()});
  return usable;
}

Kernels& best_kernels() {
  return *chosen().kernels;
}
}  // namespace cpu

CpuInfo cpu_info() {
  return {chosen().name, available()};
}

}  // namespace llmeff
