#include "lab.h"

namespace llmeff::test {

Lab::Lab() : cpu_(cpu::best_kernels()) {
  cudaStream_t stream;
  LLMEFF_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  context_ = std::make_unique<cuda::Context>(cuda::facts_of(0), stream);
  gpu_ = std::make_unique<cuda::CudaKernels>(*context_);
}

void Lab::expect(const std::string& what, const Twin& twin, double tolerance, double magnitude) {
  const std::vector<double> got = twin.received(cpu_), want = twin.wanted(cpu_);
  int64_t wrong = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const bool equal = std::isnan(want[i])   ? std::isnan(got[i])
                       : std::isinf(want[i]) ? got[i] == want[i]
                                             : std::fabs(got[i] - want[i]) <= tolerance * (magnitude + std::fabs(want[i]));
    if (equal) continue;
    if (++wrong == 1)
      CHECK(equal, "%s (%s): element %zu of %zu is %.9g, not %.9g", what.c_str(), name_of(twin.dtype()), i, want.size(),
            got[i], want[i]);
  }
  if (wrong > 1) std::printf("  … and %lld more\n", static_cast<long long>(wrong - 1));
}

Lab& lab() {
  static Lab* const the_lab = new Lab();
  return *the_lab;
}

}  // namespace llmeff::test
