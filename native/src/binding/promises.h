// Promises that the stream settles. The process stays alive while one is pending.
#pragma once

#include <napi.h>

#include <memory>

#include "binding/errors.h"
#include "llmeff/device.h"

namespace llmeff::binding {

class Promises {
 public:
  struct Pending {
    Promises* owner;
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference target;  // what the promise resolves to; keeps the memory that the stream writes
    std::shared_ptr<Failure> failure;
  };

  Promises(Napi::Env env, Errors& errors);

  // A promise that resolves to `target`, or rejects when a failure was put into it.
  Pending* make(Napi::Env env, const Napi::Value& target);
  // Once for each, on any thread; it is JavaScript's from then on.
  void settle(Pending* pending);

 private:
  Errors& errors_;
  Napi::ThreadSafeFunction settle_;
  int pending_ = 0;
};

}  // namespace llmeff::binding
