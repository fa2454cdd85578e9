// Errors on their way to JavaScript, in one place.
#pragma once

#include <napi.h>

#include <exception>
#include <new>
#include <string>

#include "llmeff/device.h"
#include "llmeff/error.h"

namespace llmeff::binding {

class Errors {
 public:
  // (code, message, op, ticket) → Error, given by the loader so that native errors are of the project's classes.
  void set_factory(const Napi::Function& factory) { factory_ = Napi::Persistent(factory); }

  Napi::Value make(Napi::Env env, const std::string& code, const std::string& message, const std::string& op,
                   uint64_t ticket);
  // That of a piece of work, which counts as told from here on.
  Napi::Value make(Napi::Env env, Failure& failure);

  // Runs the body of a function that JavaScript calls as `name`.
  template <class F>
  napi_value guard(Napi::Env env, const char* name, F&& body) {
    try {
      return body();
    } catch (const Error& error) {
      napi_throw(env, make(env, error.code(), error.what(), name, 0));
    } catch (const std::bad_alloc&) {
      napi_throw(env, make(env, "ERR_OUT_OF_MEMORY", "[native] out of memory", name, 0));
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    } catch (const std::exception& error) {
      napi_throw(env, make(env, "ERR_INTERNAL", std::string("[native] ") + error.what(), name, 0));
    }
    return nullptr;
  }

 private:
  Napi::FunctionReference factory_;
};

}  // namespace llmeff::binding
