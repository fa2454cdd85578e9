// How a test starts this program again, in a process with another environment.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace llmeff::test {

// The command and its first arguments: through the emulator that this program runs under, if any.
inline std::vector<std::string> self() {
  std::vector<std::string> command;
  if (const char* emulator = std::getenv("LLMEFF_TEST_EMULATOR")) command.push_back(emulator);
  command.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
  return command;
}

}  // namespace llmeff::test
