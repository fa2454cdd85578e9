#include "binding/errors.h"

namespace llmeff::binding {

Napi::Value Errors::make(Napi::Env env, const std::string& code, const std::string& message, const std::string& op,
                         uint64_t ticket) {
  if (factory_.IsEmpty()) return Napi::Error::New(env, code + ": " + message).Value();
  return factory_.Call({Napi::String::New(env, code), Napi::String::New(env, message), Napi::String::New(env, op),
                        Napi::Number::New(env, static_cast<double>(ticket))});
}

Napi::Value Errors::make(Napi::Env env, Failure& failure) {
  failure.observed = true;
  return make(env, failure.code, failure.message, failure.op, failure.ticket);
}

}  // namespace llmeff::binding
