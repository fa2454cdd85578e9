// The checks of ids and targets, and what users are told.
#pragma once

#include "cuda/context.h"
#include "llmeff/error.h"

namespace llmeff::cuda {

inline ValueCheck check_ids(Context& cuda, int64_t vocabulary) {
  return cuda.check_values([=](int64_t position, int32_t id) {
    return formatted("[embedding] token id %d at position %lld is outside the vocabulary of %lld", id,
                     static_cast<long long>(position), static_cast<long long>(vocabulary));
  });
}

inline ValueCheck check_targets(Context& cuda, int64_t vocabulary) {
  return cuda.check_values([=](int64_t row, int32_t target) {
    return formatted("[crossEntropy] target %d at row %lld is outside [0, %lld)", target, static_cast<long long>(row),
                     static_cast<long long>(vocabulary));
  });
}

}  // namespace llmeff::cuda
