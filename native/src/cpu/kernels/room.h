// Memory of a call's own, for kernels that call others: those take the scratch memory.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "llmeff/error.h"

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

}  // namespace llmeff::cpu::LLMEFF_ISA
