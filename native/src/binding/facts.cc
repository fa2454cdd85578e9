// What the engine says about itself: memory and the machine.
#include "binding/environment.h"
#include "llmeff/device.h"
#include "llmeff/parallel.h"

namespace llmeff::binding {

void define_facts(Environment& environment, Napi::Env env, Napi::Object& exports) {
  environment.define(env, exports, "memory", [&environment](const Arguments& info) {
    const MemoryUse use = cpu_device().memory();
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
    cpu_device().reset_peak();
    return info.Env().Undefined();
  });
  environment.define(env, exports, "emptyCache", [](const Arguments& info) {
    cpu_device().empty_cache();
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
}

}  // namespace llmeff::binding
