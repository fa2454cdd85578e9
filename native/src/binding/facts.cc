// What the engine says about itself: memory and the machine.
#include <string>
#include <vector>

#include "binding/environment.h"
#include "llmeff/cuda.h"
#include "llmeff/device.h"
#include "llmeff/parallel.h"

namespace llmeff::binding {

void define_facts(Environment& environment, Napi::Env env, Napi::Object& exports) {
  // memory(device), resetPeak(device), emptyCache(device); handles are those of all devices.
  environment.define(env, exports, "memory", [&environment](const Arguments& info) {
    const MemoryUse use = device_argument(info[0]).memory();
    Napi::Object result = Napi::Object::New(info.Env());
    const auto set = [&](const char* name, size_t value) {
      result.Set(name, Napi::Number::New(info.Env(), static_cast<double>(value)));
    };
    set("handles", environment.handles.live());
    set("liveBytes", use.live_bytes);
    set("peakBytes", use.peak_bytes);
    set("cachedBytes", use.cached_bytes);
    set("systemAllocations", use.system_allocations);
    return result;
  });
  environment.define(env, exports, "resetPeak", [](const Arguments& info) {
    device_argument(info[0]).reset_peak();
    return info.Env().Undefined();
  });
  environment.define(env, exports, "emptyCache", [&environment](const Arguments& info) {
    environment.refuse_while_recording("emptyCache");
    device_argument(info[0]).empty_cache();
    return info.Env().Undefined();
  });
  environment.define(env, exports, "info", [](const Arguments& info) {
    cpu_device();  // fails here, not at the first tensor, when the instruction set asked for is not to be had
    const CpuInfo cpu = cpu_info();
    Napi::Array available = Napi::Array::New(info.Env(), cpu.available.size());
    for (uint32_t i = 0; i < cpu.available.size(); ++i) available.Set(i, cpu.available[i]);
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("isa", cpu.isa);
    result.Set("availableIsas", available);
    result.Set("numThreads", num_threads());
    result.Set("compiler", std::string(__VERSION__));
    return result;
  });
  // setCudaLibraries(paths): where the library of the CUDA device may be, in order.
  environment.define(env, exports, "setCudaLibraries", [](const Arguments& info) {
    const auto list = info[0].As<Napi::Array>();
    std::vector<std::string> paths;
    for (uint32_t i = 0; i < list.Length(); ++i) paths.push_back(list.Get(i).As<Napi::String>());
    set_cuda_libraries(std::move(paths));
    return info.Env().Undefined();
  });
  // cudaDevices() → [{ name, memoryBytes, capability, driver }]; throws with the reason when there is none.
  environment.define(env, exports, "cudaDevices", [](const Arguments& info) {
    const std::vector<CudaDeviceInfo> devices = cuda_devices();
    Napi::Array result = Napi::Array::New(info.Env(), devices.size());
    for (uint32_t i = 0; i < devices.size(); ++i) {
      Napi::Object device = Napi::Object::New(info.Env());
      device.Set("name", devices[i].name);
      device.Set("memoryBytes", static_cast<double>(devices[i].memory_bytes));
      device.Set("capability", devices[i].capability);
      device.Set("driver", devices[i].driver);
      result.Set(i, device);
    }
    return result;
  });
}

}  // namespace llmeff::binding
