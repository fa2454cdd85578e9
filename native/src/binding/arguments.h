// The arguments of a function that JavaScript calls. Numbers are read without a detour: small operations cost little
// more than their calls.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>

#include "llmeff/device.h"
#include "llmeff/view.h"

namespace llmeff::binding {

class Arguments {
 public:
  static constexpr size_t kMost = 24;

  Arguments(napi_env env, napi_callback_info info, void** data) : env_(env), count_(kMost) {
    napi_get_cb_info(env, info, &count_, values_, nullptr, data);
  }

  Napi::Env Env() const { return env_; }
  // Those that came; the ones after them read as undefined.
  size_t Length() const { return count_; }
  Napi::Value operator[](size_t i) const { return {env_, i < kMost ? values_[i] : nullptr}; }

 private:
  napi_env env_;
  size_t count_;
  napi_value values_[kMost];
};

// Throw an exception of JavaScript unless the value is a number.
double number_argument(const Napi::Value& value);
int64_t integer_argument(const Napi::Value& value);
DType dtype_argument(const Napi::Value& value);
// 0 and undefined: the CPU; 1 + i: cuda:i. Throws Error(ERR_DEVICE) when that is not to be had.
Device& device_argument(const Napi::Value& value);
Napi::TypedArray typed_array_argument(const Napi::Value& value);

// Whether it is a number, which is then put into `number`.
inline bool is_number(const Napi::Value& value, double& number) {
  return napi_get_value_double(value.Env(), value, &number) == napi_ok;
}

}  // namespace llmeff::binding
