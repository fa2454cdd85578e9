// Errors of the engine. Kernels run long after the call that queued them; what they throw is kept with the arrays they
// should have written and rejects the next read of those (see device.h).
#pragma once

#include <stdexcept>
#include <string>

namespace llmeff {

// `code` is the stable name that TypeScript sees (`ERR_INDEX`, `ERR_OUT_OF_MEMORY`, …).
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const std::string& code() const { return code_; }

 private:
  std::string code_;
};

// For kernels: printf-style, and no C++ library type crosses into their translation units.
[[noreturn]] void fail(const char* code, const char* format, ...) __attribute__((format(printf, 2, 3)));

// A text, printf-style.
std::string formatted(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace llmeff
