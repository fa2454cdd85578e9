#include "binding/promises.h"

namespace llmeff::binding {

Promises::Promises(Napi::Env env, Errors& errors)
    : errors_(errors),
      settle_(Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "llmeff",
                                            0, 1)) {
  settle_.Unref(env);
}

Promises::Pending* Promises::make(Napi::Env env, const Napi::Value& target) {
  auto* const pending = new Pending{this, Napi::Promise::Deferred::New(env), {}, nullptr};
  if (target.IsObject()) pending->target = Napi::Persistent(target.As<Napi::Object>());
  if (pending_++ == 0) settle_.Ref(env);
  return pending;
}

void Promises::settle(Pending* pending) {
  settle_.NonBlockingCall(pending, [](Napi::Env env, Napi::Function, Pending* pending) {
    const std::unique_ptr<Pending> owned(pending);
    if (static_cast<napi_env>(env) == nullptr) {
      pending->target.SuppressDestruct();
      return;
    }
    Napi::HandleScope scope(env);
    Promises& owner = *pending->owner;
    if (--owner.pending_ == 0) owner.settle_.Unref(env);
    if (pending->failure)
      pending->deferred.Reject(owner.errors_.make(env, *pending->failure));
    else
      pending->deferred.Resolve(pending->target.IsEmpty() ? env.Undefined() : Napi::Value(pending->target.Value()));
  });
}

}  // namespace llmeff::binding
