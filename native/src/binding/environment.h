// What the addon keeps for one environment of JavaScript (the main thread or a worker), and how functions get their
// place in it.
#pragma once

#include <napi.h>

#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/promises.h"

namespace llmeff::binding {

struct Environment {
  explicit Environment(Napi::Env env) : promises(env, errors) {}

  // Sets object[name] to a function that runs call(info) → value; C++ errors become exceptions of JavaScript.
  template <class F>
  void define(Napi::Env env, Napi::Object& object, const char* name, F call) {
    object.Set(name, Napi::Function::New(
                         env,
                         [this, name, call](const Napi::CallbackInfo& info) {
                           return errors.guard(info.Env(), name, [&]() -> Napi::Value { return call(info); });
                         },
                         name));
  }

  HandleTable handles;
  Errors errors;
  Promises promises;
};

// The functions of each file below.
void define_arrays(Environment& environment, Napi::Env env, Napi::Object& exports);     // arrays.cc
void define_transfers(Environment& environment, Napi::Env env, Napi::Object& exports);  // transfers.cc
void define_facts(Environment& environment, Napi::Env env, Napi::Object& exports);      // facts.cc
void define_ops(Environment& environment, Napi::Env env, Napi::Object& exports);        // ops.cc

}  // namespace llmeff::binding
