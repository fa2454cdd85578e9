// For LD_PRELOAD: dlopen as on a machine that lacks some libraries. LLMEFF_TEST_ABSENT=cublasLt:cuda names those that it doesn't
// find; LLMEFF_TEST_OLD_DRIVER is a file that it opens in the place of the driver.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef void* (*Open)(const char*, int);

static int is_absent(const char* file) {
  const char* const absent = getenv("LLMEFF_TEST_ABSENT");
  char name[64];
  for (const char* at = absent; at != NULL && *at != '\0';) {
    const size_t length = strcspn(at, ":");
    if (length > 0 && length + 4 < sizeof name) {
      memcpy(name, "lib", 3);
      memcpy(name + 3, at, length);
      memcpy(name + 3 + length, ".", 2);
      if (strstr(file, name) != NULL) return 1;
    }
    at += length + (at[length] == ':');
  }
  return 0;
}

void* dlopen(const char* file, int flags) {
  const Open open = (Open)dlsym(RTLD_NEXT, "dlopen");
  if (file == NULL) return open(file, flags);
  const char* const driver = getenv("LLMEFF_TEST_OLD_DRIVER");
  if (driver != NULL && strstr(file, "libcuda.") != NULL) return open(driver, flags);
  if (is_absent(file)) return open("/absent/library.so", flags);
  return open(file, flags);
}
