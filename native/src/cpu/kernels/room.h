// Memory of a call's own, for kernels that call others: those take the scratch memory.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "llmeff/error.h"
#include "llmeff/view.h"

namespace llmeff::cpu::LLMEFF_ISA {

struct Room {
  Room(const char* op, int64_t bytes) : data(static_cast<char*>(std::malloc(static_cast<size_t>(bytes)))) {
    if (data == nullptr) fail("ERR_OUT_OF_MEMORY", "[%s] no memory for %lld bytes.", op, static_cast<long long>(bytes));
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { std::free(data); }

  char* const data;
};

// An array of its shape and dtype that lies row by row.
LLMEFF_INLINE View packed(void* data, const View& like) {
  View view = like;
  view.data = data;
  int64_t step = 1;
  for (int axis = view.rank - 1; axis >= 0; step *= view.shape[axis--]) view.strides[axis] = step;
  return view;
}

}  // namespace llmeff::cpu::LLMEFF_ISA
