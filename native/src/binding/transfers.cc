// Numbers between JavaScript's memory and the engine's.
#include <utility>
#include <vector>

#include "binding/environment.h"
#include "binding/marshal.h"

namespace llmeff::binding {
namespace {

// upload(handle, typedArray, dtype of its items): copies (and converts) as many elements as the array has, in row-major
// order.
Napi::Value upload(Environment& environment, const Arguments& info) {
  const Array& target = environment.handles.at(number_argument(info[0]));
  const Napi::TypedArray source = typed_array_argument(info[1]);
  const DType dtype = dtype_argument(info[2]);
  const auto* const data = static_cast<const uint8_t*>(data_of(source));
  const int64_t bytes = target.view.size() * item_size(dtype);
  if (static_cast<int64_t>(source.ByteLength()) != bytes)
    fail("ERR_SHAPE", "[native] expected %lld bytes; received %zu.", static_cast<long long>(bytes),
         source.ByteLength());
  if (!target.buffer) return info.Env().Undefined();
  // The caller may change its array as soon as this returns, and the memory may still be read by queued work: stage
  // a copy.
  std::vector<uint8_t> staged(data, data + bytes);
  Argument<const In&> in;
  static_cast<View&>(in.view) = contiguous_view(staged.data(), dtype, target.view.shape, target.view.rank);
  submit_call(target.buffer.device(), "upload", Half::kNative,
              Call(&Kernels::copy, std::move(in), Argument<const Out&>{array_argument<Out>(target)}),
              [staged = std::move(staged)](const FailurePointer&) {});
  return info.Env().Undefined();
}

// A copy of `source` into the memory of a typed array of the same dtype, to be queued on `device`; null when there is
// nothing to copy.
struct Download {
  Device* device;
  Call<const In&, const Out&> call;
};
Download download_of(const Environment& environment, const Arguments& info) {
  const Array& source = environment.handles.at(number_argument(info[0]));
  const Napi::TypedArray target = typed_array_argument(info[1]);
  const int64_t bytes = source.view.size() * item_size(source.view.dtype);
  if (static_cast<int64_t>(target.ByteLength()) != bytes)
    fail("ERR_SHAPE", "[native] expected room for %lld bytes; received %zu.", static_cast<long long>(bytes),
         target.ByteLength());
  Argument<const Out&> out;
  static_cast<View&>(out.view) =
      contiguous_view(data_of(target), source.view.dtype, source.view.shape, source.view.rank);
  return {source.buffer ? &source.buffer.device() : nullptr,
          Call(&Kernels::copy, Argument<const In&>{array_argument<In>(source)}, std::move(out))};
}

// read(handle, typedArray) → Promise<typedArray>
Napi::Value read(Environment& environment, const Arguments& info) {
  Download download = download_of(environment, info);
  Promises& promises = environment.promises;
  Promises::Pending* const pending = promises.make(info.Env(), info[1]);
  const Napi::Promise promise = pending->deferred.Promise();
  if (download.device == nullptr) {
    promises.settle(pending);
    return promise;
  }
  submit_call(*download.device, "read", Half::kNative, std::move(download.call),
              [&promises, pending](const FailurePointer& failure) {
                pending->failure = failure;
                promises.settle(pending);
              });
  return promise;
}

// readSync(handle, typedArray) → typedArray
Napi::Value read_sync(Environment& environment, const Arguments& info) {
  Download download = download_of(environment, info);
  if (download.device == nullptr) return info[1];
  FailurePointer failure;
  submit_call(*download.device, "read", Half::kNative, std::move(download.call),
              [&failure](const FailurePointer& f) { failure = f; });
  download.device->synchronize();
  if (failure) {
    napi_throw(info.Env(), environment.errors.make(info.Env(), *failure));
    return info.Env().Undefined();
  }
  return info[1];
}

// synchronize() → Promise<void>: all work queued before has run; rejects with the oldest failure nobody was told of.
Napi::Value synchronize(Environment& environment, const Arguments& info) {
  Device& device = cpu_device();
  Promises& promises = environment.promises;
  Promises::Pending* const pending = promises.make(info.Env(), info.Env().Undefined());
  const Napi::Promise promise = pending->deferred.Promise();
  device.submit([&promises, pending, &device](uint64_t) {
    pending->failure = device.take_unobserved();
    promises.settle(pending);
  });
  return promise;
}

}  // namespace

void define_transfers(Environment& environment, Napi::Env env, Napi::Object& exports) {
  const auto define = [&](const char* name, Napi::Value (*call)(Environment&, const Arguments&)) {
    environment.define(env, exports, name,
                       [&environment, call](const Arguments& info) { return call(environment, info); });
  };
  define("upload", upload);
  define("read", read);
  define("readSync", read_sync);
  define("synchronize", synchronize);
}

}  // namespace llmeff::binding
