// Runs every registered test, that of the name that is the first argument, or if there is none those whose name contains
// it; the last line counts them. --list: only prints the names. NAME --small: without the largest shapes.
#include <chrono>
#include <cstring>
#include <exception>

#include "test.h"

int main(int argc, char** argv) {
  using namespace llmeff::test;
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // what was printed before a crash is seen
  const char* const wanted = argc > 1 ? argv[1] : "";
  if (std::strcmp(wanted, "--list") == 0) {
    for (const Case& test : cases()) std::printf("%s\n", test.name);
    return 0;
  }
  if (argc > 2 && std::strcmp(argv[2], "--small") == 0) most_work = int64_t{1} << 24;
  bool exact = false;
  for (const Case& test : cases()) exact |= std::strcmp(test.name, wanted) == 0;
  int passed = 0, failed = 0;
  for (const Case& test : cases()) {
    if (exact ? std::strcmp(test.name, wanted) != 0 : std::strstr(test.name, wanted) == nullptr) continue;
    failures = 0;
    const auto start = std::chrono::steady_clock::now();
    try {
      test.run();
    } catch (const std::exception& error) {
      ++failures;
      std::printf("  threw: %s\n", error.what());
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (seconds.count() > 10) std::printf("  %s took %.0f s\n", test.name, seconds.count());
    if (failures == 0) {
      ++passed;
    } else {
      ++failed;
      std::printf("FAILED %s (%d checks)\n", test.name, failures);
    }
  }
  if (left_out > 0) std::printf("left out for their size: %d cases\n", left_out);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
