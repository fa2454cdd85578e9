// GPUs as devices. They come from a library of their own, llmeff-cuda.so, which is opened at the first call below, so that
// the engine loads and runs where there is no GPU.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "llmeff/device.h"

namespace llmeff {

struct CudaDeviceInfo {
  std::string name;
  size_t memory_bytes;
  std::string capability;  // "9.0"
  int driver;              // the newest CUDA that the driver knows, 1000 · major + 10 · minor
};

// What llmeff-cuda.so gives by its only symbol, llmeff_cuda_library. Both functions throw Error(ERR_DEVICE) when there is
// nothing to use.
struct CudaLibrary {
  static constexpr int kVersion = 2;  // of this interface; engine and library are of one release

  int version;
  std::vector<CudaDeviceInfo> (*devices)();
  Device& (*device)(int index);  // opened at the first call, never closed
};

// Where the library may be, in order; the first that exists is taken.
void set_cuda_libraries(std::vector<std::string> paths);
// All of these throw Error(ERR_DEVICE) with the reason: no library, no driver, one that is too old, no such GPU.
std::vector<CudaDeviceInfo> cuda_devices();
Device& cuda_device(int index);
// The GPUs that were opened so far.
std::vector<Device*> open_cuda_devices();

}  // namespace llmeff
