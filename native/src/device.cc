#include "llmeff/device.h"

#include <algorithm>

namespace llmeff {

FailurePointer happened(const FailurePointer& failure) {
  if (failure == nullptr || failure->parts.empty())
    return failure != nullptr && failure->state == Failure::State::kFailed ? failure : nullptr;
  for (const FailurePointer& part : failure->parts)
    if (part->state == Failure::State::kFailed) return part;
  return nullptr;
}

void add_pending(const FailurePointer& failure, std::vector<FailurePointer>& pending) {
  const auto add = [&](const FailurePointer& check) {
    if (check->state == Failure::State::kPending && std::find(pending.begin(), pending.end(), check) == pending.end())
      pending.push_back(check);
  };
  if (failure->parts.empty()) return add(failure);
  for (const FailurePointer& part : failure->parts) add(part);
}

FailurePointer joined(const std::vector<FailurePointer>& pending) {
  if (pending.size() <= 1) return pending.empty() ? nullptr : pending.front();
  auto all = std::make_shared<Failure>();
  all->parts = pending;
  return all;
}

FailurePointer Device::take_unobserved() {
  const FailurePointer failure = std::exchange(unobserved_, nullptr);
  if (failure == nullptr || failure->observed) return nullptr;
  failure->observed = true;
  return failure;
}

}  // namespace llmeff
