// The checks of ids and targets, and what users are told.
#pragma once

#include <string>

#include "cuda/context.h"

namespace llmeff::cuda {

inline ValueCheck check_ids(Context& cuda, int64_t vocabulary) {
  return cuda.check_values([=](int64_t position, int32_t id) {
    return "[embedding] token id " + std::to_string(id) + " at position " + std::to_string(position) +
           " is outside the vocabulary of " + std::to_string(vocabulary);
  });
}

inline ValueCheck check_targets(Context& cuda, int64_t vocabulary) {
  return cuda.check_values([=](int64_t row, int32_t target) {
    return "[crossEntropy] target " + std::to_string(target) + " at row " + std::to_string(row) + " is outside [0, " +
           std::to_string(vocabulary) + ")";
  });
}

}  // namespace llmeff::cuda
