// Runs every registered test, or those whose name contains the first argument; the last line counts them.
#include <chrono>
#include <cstring>
#include <exception>

#include "test.h"

int main(int argc, char** argv) {
  using namespace llmeff::test;
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // what was printed before a crash is seen
  int passed = 0, failed = 0;
  for (const Case& test : cases()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
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
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
