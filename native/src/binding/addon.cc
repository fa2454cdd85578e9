// The addon: the engine's devices, arrays and kernels as functions on numbers and typed arrays. It marshals. Handles
// and views are checked here: whatever numbers come, a handle names a live array or is refused, and a view stays inside
// its memory. Shapes and dtypes that don't fit a kernel are not: op.<kernel> trusts them, and a wrong one may read or
// write outside of its arrays. @llmeff/tensor checks them and is what programs use.
#include <napi.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "binding/environment.h"
#include "llmeff/cuda.h"
#include "llmeff/device.h"
#include "llmeff/error.h"

namespace llmeff::binding {
namespace {

// Keeps this library in memory to the end of the process. Node unloads an addon with the last worker that uses it, but
// the engine's threads run in its code.
void stay_loaded() {
#if defined(_WIN32)
  HMODULE module = nullptr;
  GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                     reinterpret_cast<const char*>(&stay_loaded), &module);
#else
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&stay_loaded), &self) != 0)
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

class Addon : public Napi::Addon<Addon> {
 public:
  Addon(Napi::Env env, Napi::Object exports) : environment_(env) {
    stay_loaded();
    // Runs before the hook of the promises: nothing may write into this environment's buffers once it is gone.
    env.AddCleanupHook([] {
      try {
        cpu_device().synchronize();
      } catch (const Error&) {  // there is no device, so there is no work
      }
      for (Device* const device : open_cuda_devices()) device->synchronize();
    });
    environment_.define(env, exports, "setErrorFactory", [this](const Arguments& info) {
      environment_.errors.set_factory(info[0].As<Napi::Function>());
      return info.Env().Undefined();
    });
    define_arrays(environment_, env, exports);
    define_transfers(environment_, env, exports);
    define_facts(environment_, env, exports);
    define_ops(environment_, env, exports);
    define_programs(environment_, env, exports);
  }

 private:
  Environment environment_;
};

}  // namespace

NODE_API_ADDON(Addon)

}  // namespace llmeff::binding
