// What the addon keeps for one environment of JavaScript (the main thread or a worker), and how functions get their
// place in it.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "binding/arguments.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/promises.h"

namespace llmeff::binding {

struct Environment {
  explicit Environment(Napi::Env env) : promises(env, errors) {}

  // Sets object[name] to a function that runs call(arguments) → value; C++ errors become exceptions of JavaScript.
  template <class F>
  void define(Napi::Env env, Napi::Object& object, const char* name, F call) {
    struct Function {
      Errors& errors;
      const char* name;
      F call;
      static napi_value run(napi_env env, napi_callback_info info) {
        void* self = nullptr;
        const Arguments arguments(env, info, &self);
        auto& [errors, name, call] = *static_cast<Function*>(self);
        return errors.guard(env, name, [&]() -> napi_value { return call(arguments); });
      }
    };
    const auto function = std::make_shared<Function>(Function{errors, name, std::move(call)});
    functions.push_back(function);
    napi_value value = nullptr;
    if (napi_create_function(env, name, NAPI_AUTO_LENGTH, &Function::run, function.get(), &value) != napi_ok)
      throw Napi::Error::New(env);
    object.Set(name, value);
  }

  HandleTable handles;
  Errors errors;
  Promises promises;
  std::vector<std::shared_ptr<void>> functions;
};

// The functions of each file below.
void define_arrays(Environment& environment, Napi::Env env, Napi::Object& exports);     // arrays.cc
void define_transfers(Environment& environment, Napi::Env env, Napi::Object& exports);  // transfers.cc
void define_facts(Environment& environment, Napi::Env env, Napi::Object& exports);      // facts.cc
void define_ops(Environment& environment, Napi::Env env, Napi::Object& exports);        // ops.cc

}  // namespace llmeff::binding
