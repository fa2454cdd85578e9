// Finds and opens the library of the CUDA device.
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <utility>

#include "llmeff/cuda.h"
#include "llmeff/error.h"

namespace llmeff {
namespace {

std::mutex mutex;  // guards all below
std::vector<std::string> candidates;
const CudaLibrary* library = nullptr;
std::map<int, Device*> opened;

const CudaLibrary& open_library() {
  if (library != nullptr) return *library;
  std::string reasons;
  for (const std::string& path : candidates) {
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == nullptr) {
      const char* const reason = dlerror();
      reasons += (reasons.empty() ? "" : "; ") + std::string(reason == nullptr ? path.c_str() : reason);
      continue;
    }
    const auto get = reinterpret_cast<const CudaLibrary* (*)()>(dlsym(handle, "llmeff_cuda_library"));
    if (get == nullptr || get()->version != CudaLibrary::kVersion) {
      reasons += (reasons.empty() ? "" : "; ") + path + ": of another release of llmeff";
      continue;
    }
    library = get();
    return *library;
  }
  throw Error("ERR_DEVICE", "[cuda] the CUDA part of llmeff is not installed (" +
                                (reasons.empty() ? std::string("no place to look") : reasons) +
                                "). Install @llmeff/native-linux-x64-cuda, or build from source where nvcc is on the "
                                "PATH: npm run build:native.");
}

}  // namespace

void set_cuda_libraries(std::vector<std::string> paths) {
  std::lock_guard lock(mutex);
  candidates = std::move(paths);
}

std::vector<CudaDeviceInfo> cuda_devices() {
  std::lock_guard lock(mutex);
  return open_library().devices();
}

Device& cuda_device(int index) {
  std::lock_guard lock(mutex);
  if (const auto found = opened.find(index); found != opened.end()) return *found->second;
  Device& device = open_library().device(index);
  opened[index] = &device;
  return device;
}

std::vector<Device*> open_cuda_devices() {
  std::lock_guard lock(mutex);
  std::vector<Device*> devices;
  for (const auto& [index, device] : opened) devices.push_back(device);
  return devices;
}

}  // namespace llmeff
