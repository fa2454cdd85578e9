#include "llmeff/device.h"

namespace llmeff {

FailurePointer Device::take_unobserved() {
  const FailurePointer failure = std::exchange(unobserved_, nullptr);
  if (failure == nullptr || failure->observed) return nullptr;
  failure->observed = true;
  return failure;
}

}  // namespace llmeff
