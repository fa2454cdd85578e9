#include "llmeff/error.h"

#include <cstdarg>
#include <cstdio>

namespace llmeff {

namespace {

std::string text_of(const char* format, va_list arguments) {
  char text[512];
  std::vsnprintf(text, sizeof text, format, arguments);
  return text;
}

}  // namespace

void fail(const char* code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string message = text_of(format, arguments);
  va_end(arguments);
  throw Error(code, message);
}

std::string formatted(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = text_of(format, arguments);
  va_end(arguments);
  return text;
}

}  // namespace llmeff
