// Numbers between JavaScript's memory and the engine's, and between devices.
#include <cstring>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "binding/environment.h"
#include "binding/marshal.h"

namespace llmeff::binding {
namespace {

using CopyCall = Call<const In&, const Out&>;

template <class V>
Argument<const V&> argument_of(const View& view) {
  Argument<const V&> argument;
  static_cast<View&>(argument.view) = view;
  return argument;
}
template <class V>
Argument<const V&> argument_of(const Array& array) {
  return {array_argument<V>(array), {}};
}

// Queues a copy. done(failure or null) is called once it has been made; what `done` holds lives until then.
template <class Done>
void submit_copy(Device& device, const char* op, CopyCall call, Done done) {
  device.submit([&device, op, call = std::move(call), done = std::move(done)](uint64_t ticket) mutable {
    const FailurePointer failure = call.run(device, op, ticket);
    device.finish(ticket, [failure, done = std::move(done)](const FailurePointer& lost) {
      const FailurePointer failed = happened(failure);
      done(failed != nullptr ? failed : lost);
    });
  });
}

// upload(handle, typedArray, dtype of its items): copies (and converts) as many elements as the array has, in row-major
// order.
Napi::Value upload(Environment& environment, const Arguments& info) {
  const Array& target = environment.handles.at(number_argument(info[0]));
  const Napi::TypedArray source = typed_array_argument(info[1]);
  const DType dtype = dtype_argument(info[2]);
  const int64_t bytes = target.view.size() * item_size(dtype);
  if (static_cast<int64_t>(source.ByteLength()) != bytes)
    fail("ERR_SHAPE", "[native] expected %lld bytes; received %zu.", static_cast<long long>(bytes),
         source.ByteLength());
  if (!target.buffer) return info.Env().Undefined();
  // The caller may change its array as soon as this returns, and the memory may still be read by queued work: stage
  // a copy.
  Device& device = target.buffer.device();
  std::shared_ptr<void> staged = device.staging(static_cast<size_t>(bytes));
  if (staged == nullptr)
    staged = {::operator new(static_cast<size_t>(bytes)), [](void* data) { ::operator delete(data); }};
  std::memcpy(staged.get(), data_of(source), static_cast<size_t>(bytes));
  const View from = contiguous_view(staged.get(), dtype, target.view.shape, target.view.rank);
  submit_copy(device, "upload", CopyCall(&Kernels::copy, argument_of<In>(from), argument_of<Out>(target)),
              [staged = std::move(staged)](const FailurePointer&) {});
  return info.Env().Undefined();
}

// A copy of `source` into the memory of a typed array of the same dtype, through memory that the device reaches;
// `source` without elements: null.
class Download {
 public:
  Download(const Environment& environment, const Arguments& info) {
    const Array& source = environment.handles.at(number_argument(info[0]));
    const Napi::TypedArray target = typed_array_argument(info[1]);
    bytes_ = static_cast<size_t>(source.view.size() * item_size(source.view.dtype));
    if (target.ByteLength() != bytes_)
      fail("ERR_SHAPE", "[native] expected room for %zu bytes; received %zu.", bytes_, target.ByteLength());
    if (!source.buffer) return;
    device_ = &source.buffer.device();
    target_ = data_of(target);
    staged_ = device_->staging(bytes_);
    const View to = contiguous_view(staged_ ? staged_.get() : target_, source.view.dtype, source.view.shape,
                                    source.view.rank);
    call_ = std::make_unique<CopyCall>(&Kernels::copy, argument_of<In>(source), argument_of<Out>(to));
  }

  Device* device() const { return device_; }

  // done(failure or null), on any thread, when the numbers are in the typed array.
  template <class Done>
  void submit(Done done) {
    submit_copy(*device_, "read", std::move(*call_),
                [staged = staged_, target = target_, bytes = bytes_, done = std::move(done)](const FailurePointer& f) {
                  if (staged != nullptr && f == nullptr) std::memcpy(target, staged.get(), bytes);
                  done(f);
                });
  }

 private:
  Device* device_ = nullptr;
  void* target_ = nullptr;
  size_t bytes_ = 0;
  std::shared_ptr<void> staged_;
  std::unique_ptr<CopyCall> call_;
};

// read(handle, typedArray) → Promise<typedArray>
Napi::Value read(Environment& environment, const Arguments& info) {
  Download download(environment, info);
  Promises& promises = environment.promises;
  Promises::Pending* const pending = promises.make(info.Env(), info[1]);
  const Napi::Promise promise = pending->deferred.Promise();
  if (download.device() == nullptr) {
    promises.settle(pending);
    return promise;
  }
  download.submit([&promises, pending](const FailurePointer& failure) {
    pending->failure = failure;
    promises.settle(pending);
  });
  return promise;
}

// readSync(handle, typedArray) → typedArray
Napi::Value read_sync(Environment& environment, const Arguments& info) {
  Download download(environment, info);
  if (download.device() == nullptr) return info[1];
  std::promise<FailurePointer> finished;
  download.submit([&finished](const FailurePointer& failure) { finished.set_value(failure); });
  if (const FailurePointer failure = finished.get_future().get()) {
    napi_throw(info.Env(), environment.errors.make(info.Env(), *failure));
    return info.Env().Undefined();
  }
  return info[1];
}

// transfer(from, to): copies between arrays of one shape and dtype on two devices; work on `to` that is queued later sees
// the numbers.
Napi::Value transfer(Environment& environment, const Arguments& info) {
  const Array& from = environment.handles.at(number_argument(info[0]));
  const Array& to = environment.handles.at(number_argument(info[1]));
  if (!from.buffer || !to.buffer) return info.Env().Undefined();
  Device &source = from.buffer.device(), &target = to.buffer.device();
  const auto bytes = static_cast<size_t>(from.view.size() * item_size(from.view.dtype));
  if (from.view.dtype != to.view.dtype || from.view.size() != to.view.size())
    fail("ERR_SHAPE", "[native] a transfer needs arrays of one dtype and size.");
  std::shared_ptr<void> staged = source.staging(bytes);
  if (staged == nullptr) staged = target.staging(bytes);
  if (staged == nullptr) fail("ERR_DEVICE", "[native] a transfer is between two devices. Use copy on one.");
  const View between = contiguous_view(staged.get(), from.view.dtype, from.view.shape, from.view.rank);
  const auto arrived = std::make_shared<std::promise<FailurePointer>>();
  submit_copy(source, "transfer", CopyCall(&Kernels::copy, argument_of<In>(from), argument_of<Out>(between)),
              [arrived](const FailurePointer& failure) { arrived->set_value(failure); });
  // The target's stream waits here for the source's, which waits for earlier work only: they can't wait for each other.
  target.submit([&target, arrived, staged, contents = to.buffer.contents(),
                 call = CopyCall(&Kernels::copy, argument_of<In>(between), argument_of<Out>(to))](uint64_t ticket) mutable {
    if (const FailurePointer failure = arrived->get_future().get(); failure != nullptr)
      contents.set(failure);
    else
      call.run(target, "transfer", ticket);
    target.finish(ticket, [staged](const FailurePointer&) {});
  });
  return info.Env().Undefined();
}

// synchronize(device) → Promise<void>: all work queued before has been computed; rejects with the oldest failure nobody
// was told of.
Napi::Value synchronize(Environment& environment, const Arguments& info) {
  Device& device = device_argument(info[0]);
  Promises& promises = environment.promises;
  Promises::Pending* const pending = promises.make(info.Env(), info.Env().Undefined());
  const Napi::Promise promise = pending->deferred.Promise();
  device.submit([&promises, pending, &device](uint64_t ticket) {
    const FailurePointer failure = device.take_unobserved();
    device.finish(ticket, [&promises, pending, &device, failure](const FailurePointer& lost) {
      const FailurePointer check = failure != nullptr ? failure : device.take_unobserved_check();
      pending->failure = check != nullptr ? check : lost;
      promises.settle(pending);
    });
  });
  return promise;
}

// measureOps(device, on) → [{ op, calls, milliseconds }]: what the calls took since the last time that they were measured;
// holds up the thread until all queued work has been computed.
Napi::Value measure_ops(Environment&, const Arguments& info) {
  Device& device = device_argument(info[0]);
  const bool on = info[1].ToBoolean().Value();
  std::promise<std::vector<OpTime>> measured;
  device.submit([&](uint64_t) { measured.set_value(device.measure_ops(on)); });
  const std::vector<OpTime> times = measured.get_future().get();
  Napi::Array result = Napi::Array::New(info.Env(), times.size());
  for (uint32_t i = 0; i < times.size(); ++i) {
    Napi::Object time = Napi::Object::New(info.Env());
    time.Set("op", times[i].op);
    time.Set("calls", static_cast<double>(times[i].calls));
    time.Set("milliseconds", times[i].milliseconds);
    result.Set(i, time);
  }
  return result;
}

// clock(device, Float64Array(1)) → Promise of it: milliseconds on the device's clock when all work queued before had been
// computed.
Napi::Value clock(Environment& environment, const Arguments& info) {
  Device& device = device_argument(info[0]);
  auto* const time = static_cast<double*>(data_of(typed_array_argument(info[1])));
  Promises& promises = environment.promises;
  Promises::Pending* const pending = promises.make(info.Env(), info[1]);
  const Napi::Promise promise = pending->deferred.Promise();
  device.submit([&promises, pending, &device, time](uint64_t ticket) {
    device.clock(ticket, [&promises, pending, time](double milliseconds) {
      *time = milliseconds;
      promises.settle(pending);
    });
  });
  return promise;
}

}  // namespace

void define_transfers(Environment& environment, Napi::Env env, Napi::Object& exports) {
  const auto define = [&](const char* name, Napi::Value (*call)(Environment&, const Arguments&)) {
    environment.define(env, exports, name, [&environment, call, name](const Arguments& info) {
      environment.refuse_while_recording(name);
      return call(environment, info);
    });
  };
  define("upload", upload);
  define("read", read);
  define("readSync", read_sync);
  define("transfer", transfer);
  define("synchronize", synchronize);
  define("clock", clock);
  define("measureOps", measure_ops);
}

}  // namespace llmeff::binding
