// What the addon keeps for one environment of JavaScript (the main thread or a worker), and how functions get their
// place in it.
#pragma once

#include <napi.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "binding/arguments.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/promises.h"
#include "llmeff/error.h"
#include "llmeff/program.h"

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

  // Where new arrays on a device have their memory.
  Memory& memory_of(Device& device) {
    if (recording != nullptr && &recording->device() == &device) return *recording;
    return device;
  }
  // For what a program can't do again; throws Error(ERR_CAPTURE) while one is recorded.
  void refuse_while_recording(const char* name) const {
    if (recording != nullptr)
      fail("ERR_CAPTURE", "[%s] can't be part of a captured step: it would not happen again when the step is replayed.",
           name);
  }

  HandleTable handles;
  std::unordered_map<uint32_t, std::shared_ptr<Program>> programs;
  uint32_t next_program = 1;
  std::shared_ptr<Program> recording;  // that calls are added to instead of being queued; null: none
  Errors errors;
  Promises promises;
  std::vector<std::shared_ptr<void>> functions;
};

// The functions of each file below.
void define_arrays(Environment& environment, Napi::Env env, Napi::Object& exports);     // arrays.cc
void define_transfers(Environment& environment, Napi::Env env, Napi::Object& exports);  // transfers.cc
void define_facts(Environment& environment, Napi::Env env, Napi::Object& exports);      // facts.cc
void define_ops(Environment& environment, Napi::Env env, Napi::Object& exports);        // ops.cc
void define_programs(Environment& environment, Napi::Env env, Napi::Object& exports);   // programs.cc

}  // namespace llmeff::binding
