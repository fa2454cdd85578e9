// The addon: the engine's devices, arrays and kernels as functions on numbers and typed arrays. It marshals; the
// meaning of shapes and dtypes is checked in TypeScript, and memory safety (bounds of views, live handles) here.
#include <napi.h>

#include <string>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "binding/handles.h"
#include "binding/marshal.h"
#include "llmeff/device.h"
#include "llmeff/parallel.h"

namespace llmeff::binding {

DType dtype_of(const Napi::TypedArray& array) {
  switch (array.TypedArrayType()) {
    case napi_float32_array:
      return DType::kF32;
    case napi_float64_array:
      return DType::kF64;
    case napi_int32_array:
      return DType::kI32;
    case napi_uint8_array:
      return DType::kU8;
    case napi_uint16_array:
      return DType::kBF16;
    default:
      fail("ERR_DTYPE", "[native] expected a Float32Array, Float64Array, Int32Array, Uint8Array or Uint16Array.");
  }
}

void* data_of(const Napi::TypedArray& array) {
  void* data = nullptr;
  napi_get_typedarray_info(array.Env(), array, nullptr, nullptr, &data, nullptr, nullptr);
  return data;
}

View contiguous_view(void* data, DType dtype, const std::vector<int64_t>& shape) {
  View view;
  view.data = data;
  view.dtype = dtype;
  view.rank = static_cast<int>(shape.size());
  int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    view.shape[axis] = shape[axis];
    view.strides[axis] = stride;
    stride *= shape[axis];
  }
  return view;
}

namespace {

// Keeps this library in memory to the end of the process. Node unloads an addon with the last worker that uses it, but
// the engine's threads run in its code.
void stay_loaded() {
#if defined(_WIN32)
  HMODULE module = nullptr;
  GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                     reinterpret_cast<const char*>(&stay_loaded), &module);
#else
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&stay_loaded), &self) != 0)
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

class Addon : public Napi::Addon<Addon> {
 public:
  Addon(Napi::Env env, Napi::Object exports) {
    stay_loaded();
    settle_ =
        Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "llmeff", 0, 1);
    settle_.Unref(env);
    // Runs before the hook of settle_: nothing may write into this environment's buffers once it is gone.
    env.AddCleanupHook([] {
      try {
        cpu_device().synchronize();
      } catch (const Error&) {  // there is no device, so there is no work
      }
    });
    DefineAddon(exports, {
                             InstanceMethod("create", &Addon::Create),
                             InstanceMethod("view", &Addon::CreateView),
                             InstanceMethod("release", &Addon::Release),
                             InstanceMethod("isShared", &Addon::IsShared),
                             InstanceMethod("upload", &Addon::Upload),
                             InstanceMethod("read", &Addon::Read),
                             InstanceMethod("readSync", &Addon::ReadSync),
                             InstanceMethod("synchronize", &Addon::Synchronize),
                             InstanceMethod("memory", &Addon::Memory),
                             InstanceMethod("resetPeak", &Addon::ResetPeak),
                             InstanceMethod("emptyCache", &Addon::EmptyCache),
                             InstanceMethod("info", &Addon::Info),
                             InstanceMethod("setErrorFactory", &Addon::SetErrorFactory),
                         });
    Napi::Object op = Napi::Object::New(env);
    DefineOps(env, op);
    exports.Set("op", op);
  }

 private:
  // ---- errors ----
  // (code, message, op, ticket) → Error, given by the loader so that native errors are of the project's classes.
  void SetErrorFactory(const Napi::CallbackInfo& info) {
    error_factory_ = Napi::Persistent(info[0].As<Napi::Function>());
  }

  Napi::Value ErrorOf(Napi::Env env, const std::string& code, const std::string& message, const std::string& op,
                      uint64_t ticket) {
    if (error_factory_.IsEmpty()) return Napi::Error::New(env, code + ": " + message).Value();
    return error_factory_.Call({Napi::String::New(env, code), Napi::String::New(env, message),
                                Napi::String::New(env, op), Napi::Number::New(env, static_cast<double>(ticket))});
  }
  Napi::Value ErrorOf(Napi::Env env, const Failure& failure) {
    return ErrorOf(env, failure.code, failure.message, failure.op, failure.ticket);
  }

  // Every entry runs inside this: C++ errors become JavaScript exceptions in one place.
  template <class F>
  Napi::Value Guard(const Napi::CallbackInfo& info, const char* op, F&& body) {
    try {
      return body();
    } catch (const Error& error) {
      napi_throw(info.Env(), ErrorOf(info.Env(), error.code(), error.what(), op, 0));
    } catch (const std::bad_alloc&) {
      napi_throw(info.Env(), ErrorOf(info.Env(), "ERR_OUT_OF_MEMORY", "[native] out of memory", op, 0));
    } catch (const Napi::Error&) {
      throw;
    } catch (const std::exception& error) {
      napi_throw(info.Env(), ErrorOf(info.Env(), "ERR_INTERNAL", std::string("[native] ") + error.what(), op, 0));
    }
    return info.Env().Undefined();
  }

  // ---- arrays ----
  static std::vector<int64_t> Integers(const Napi::Value& value) {
    const auto array = value.As<Napi::Array>();
    if (array.Length() > kMaxRank)
      fail("ERR_SHAPE", "[native] at most %d axes; received %u.", kMaxRank, array.Length());
    std::vector<int64_t> numbers(array.Length());
    for (uint32_t i = 0; i < array.Length(); ++i) numbers[i] = array.Get(i).As<Napi::Number>().Int64Value();
    return numbers;
  }

  static DType DTypeArgument(const Napi::Value& value) {
    const int number = value.As<Napi::Number>().Int32Value();
    if (number < 0 || number >= kDTypeCount) fail("ERR_DTYPE", "[native] %d names no dtype.", number);
    return static_cast<DType>(number);
  }

  static Napi::TypedArray TypedArrayArgument(const Napi::Value& value) {
    if (!value.IsTypedArray()) fail("ERR_DTYPE", "[native] expected a typed array.");
    return value.As<Napi::TypedArray>();
  }

  static int64_t CheckedSize(const std::vector<int64_t>& shape, DType dtype) {
    int64_t bytes = item_size(dtype);
    bool empty = false;
    for (const int64_t n : shape) {
      if (n < 0) fail("ERR_SHAPE", "[native] a dimension is negative: %lld.", static_cast<long long>(n));
      if (n == 0) empty = true;
      if (n != 0 && __builtin_mul_overflow(bytes, n, &bytes))
        fail("ERR_OUT_OF_MEMORY", "[native] the array would have more than 2^63 bytes.");
    }
    return empty ? 0 : bytes;
  }

  Array Allocate(DType dtype, const std::vector<int64_t>& shape) {
    const int64_t bytes = CheckedSize(shape, dtype);
    Array array;
    if (bytes > 0) array.buffer = cpu_device().allocate(static_cast<size_t>(bytes));
    array.view = contiguous_view(array.buffer ? array.buffer->data() : nullptr, dtype, shape);
    return array;
  }

  // create(dtype, shape) → handle; contents undefined.
  Napi::Value Create(const Napi::CallbackInfo& info) {
    return Guard(info, "create", [&] {
      return Napi::Number::New(info.Env(), handles_.insert(Allocate(DTypeArgument(info[0]), Integers(info[1]))));
    });
  }

  // view(handle, dtype, shape, strides, offset) → handle of the same memory; offset and strides in elements from the
  // start of the view.
  Napi::Value CreateView(const Napi::CallbackInfo& info) {
    return Guard(info, "view", [&] {
      const Array& base = handles_.at(info[0].As<Napi::Number>().DoubleValue());
      const DType dtype = DTypeArgument(info[1]);
      const std::vector<int64_t> shape = Integers(info[2]), strides = Integers(info[3]);
      const int64_t offset = info[4].As<Napi::Number>().Int64Value();
      if (strides.size() != shape.size()) fail("ERR_SHAPE", "[native] a view needs a stride for each axis.");
      if (item_size(dtype) != item_size(base.view.dtype))
        fail("ERR_DTYPE", "[native] a view keeps the size of the items.");
      Array array;
      array.view = contiguous_view(nullptr, dtype, shape);
      const bool empty = CheckedSize(shape, dtype) == 0;
      if (!empty) {
        if (base.buffer == nullptr) fail("ERR_SHAPE", "[native] a view with elements of an array without.");
        // Elements of the block that the view reaches, counted from the start of the block.
        const int64_t item = item_size(dtype);
        auto* const data = static_cast<char*>(base.view.data);
        const int64_t start = (data - static_cast<char*>(base.buffer->data())) / item;
        int64_t low, high;
        bool outside = __builtin_add_overflow(start, offset, &low);
        high = low;
        for (size_t i = 0; i < shape.size(); ++i) {
          int64_t reach = 0;
          outside |= __builtin_mul_overflow(shape[i] - 1, strides[i], &reach);
          int64_t& end = reach < 0 ? low : high;
          outside |= __builtin_add_overflow(end, reach, &end);
          array.view.strides[i] = strides[i];
        }
        if (outside || low < 0 || high >= static_cast<int64_t>(base.buffer->bytes()) / item)
          fail("ERR_SHAPE", "[native] the view reaches outside its memory.");
        array.view.data = data + offset * item;
        array.buffer = base.buffer;
      }
      return Napi::Number::New(info.Env(), handles_.insert(std::move(array)));
    });
  }

  Napi::Value Release(const Napi::CallbackInfo& info) {
    handles_.release(info[0].As<Napi::Number>().DoubleValue());
    return info.Env().Undefined();
  }

  // isShared(handle) → whether another handle names memory of the same block.
  Napi::Value IsShared(const Napi::CallbackInfo& info) {
    return Guard(info, "isShared", [&] {
      return Napi::Boolean::New(info.Env(),
                                handles_.at(info[0].As<Napi::Number>().DoubleValue()).buffer.use_count() > 1);
    });
  }

  // upload(handle, typedArray, dtype of its items): copies (and converts) as many elements as the array has, in
  // row-major order.
  Napi::Value Upload(const Napi::CallbackInfo& info) {
    return Guard(info, "upload", [&] {
      const Array& target = handles_.at(info[0].As<Napi::Number>().DoubleValue());
      const Napi::TypedArray source = TypedArrayArgument(info[1]);
      const DType dtype = DTypeArgument(info[2]);
      const auto* const data = static_cast<const uint8_t*>(data_of(source));
      const int64_t bytes = target.view.size() * item_size(dtype);
      if (static_cast<int64_t>(source.ByteLength()) != bytes)
        fail("ERR_SHAPE", "[native] expected %lld bytes; received %zu.", static_cast<long long>(bytes),
             source.ByteLength());
      if (target.buffer == nullptr) return info.Env().Undefined();
      // The caller may change its array as soon as this returns, and the memory may still be read by queued work: stage
      // a copy.
      auto staged = std::make_shared<std::vector<uint8_t>>(data, data + bytes);
      Out out{target.view};
      In in{contiguous_view(staged->data(), dtype, {target.view.shape, target.view.shape + target.view.rank})};
      Access access;
      note_write(access, target);
      submit_op(target.buffer->device(), "upload", std::move(access),
                [staged, in, out](Kernels& kernels) { kernels.copy(in, out); });
      return info.Env().Undefined();
    });
  }

  // A queued copy of `source` into the memory of a typed array of the same dtype.
  struct Download {
    In in;
    Out out;
    Access access;
    Device* device;
  };
  Download DownloadOf(const Napi::CallbackInfo& info) {
    const Array& source = handles_.at(info[0].As<Napi::Number>().DoubleValue());
    const Napi::TypedArray target = TypedArrayArgument(info[1]);
    const int64_t bytes = source.view.size() * item_size(source.view.dtype);
    if (static_cast<int64_t>(target.ByteLength()) != bytes)
      fail("ERR_SHAPE", "[native] expected room for %lld bytes; received %zu.", static_cast<long long>(bytes),
           target.ByteLength());
    Download download{{source.view},
                      {contiguous_view(data_of(target), source.view.dtype,
                                       {source.view.shape, source.view.shape + source.view.rank})},
                      {},
                      source.buffer ? &source.buffer->device() : nullptr};
    if (source.buffer) download.access.in.push_back(source.buffer->status());
    return download;
  }

  // A promise that the stream settles.
  struct Pending {
    Addon* addon;
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference target;  // what the promise resolves to; keeps the memory that the stream writes
    std::shared_ptr<Failure> failure;
  };
  void Settle(Pending* pending) {
    settle_.NonBlockingCall(pending, [](Napi::Env env, Napi::Function, Pending* pending) {
      const std::unique_ptr<Pending> owned(pending);
      if (static_cast<napi_env>(env) == nullptr) {
        pending->target.SuppressDestruct();
        return;
      }
      Napi::HandleScope scope(env);
      if (--pending->addon->pending_ == 0) pending->addon->settle_.Unref(env);
      if (pending->failure) {
        pending->failure->observed = true;
        pending->deferred.Reject(pending->addon->ErrorOf(env, *pending->failure));
      } else {
        pending->deferred.Resolve(pending->target.IsEmpty() ? env.Undefined() : Napi::Value(pending->target.Value()));
      }
    });
  }
  Pending* NewPending(Napi::Env env, const Napi::Value& target) {
    auto* const pending = new Pending{this, Napi::Promise::Deferred::New(env), {}, nullptr};
    if (target.IsObject()) pending->target = Napi::Persistent(target.As<Napi::Object>());
    if (pending_++ == 0) settle_.Ref(env);
    return pending;
  }

  // read(handle, typedArray) → Promise<typedArray>
  Napi::Value Read(const Napi::CallbackInfo& info) {
    return Guard(info, "read", [&]() -> Napi::Value {
      Download download = DownloadOf(info);
      Pending* const pending = NewPending(info.Env(), info[1]);
      const Napi::Promise promise = pending->deferred.Promise();
      if (download.device == nullptr) {
        Settle(pending);
        return promise;
      }
      submit_op(
          *download.device, "read", std::move(download.access),
          [in = download.in, out = download.out](Kernels& kernels) { kernels.copy(in, out); },
          [this, pending](const std::shared_ptr<Failure>& failure) {
            pending->failure = failure;
            Settle(pending);
          });
      return promise;
    });
  }

  Napi::Value ReadSync(const Napi::CallbackInfo& info) {
    return Guard(info, "readSync", [&]() -> Napi::Value {
      Download download = DownloadOf(info);
      if (download.device == nullptr) return info[1];
      std::shared_ptr<Failure> failure;
      submit_op(
          *download.device, "read", std::move(download.access),
          [in = download.in, out = download.out](Kernels& kernels) { kernels.copy(in, out); },
          [&failure](const std::shared_ptr<Failure>& f) { failure = f; });
      download.device->synchronize();
      if (failure) {
        failure->observed = true;
        napi_throw(info.Env(), ErrorOf(info.Env(), *failure));
        return info.Env().Undefined();
      }
      return info[1];
    });
  }

  // synchronize() → Promise<void>: all work queued before has run; rejects with the oldest failure nobody was told of.
  Napi::Value Synchronize(const Napi::CallbackInfo& info) {
    return Guard(info, "synchronize", [&]() -> Napi::Value {
      Device& device = cpu_device();
      Pending* const pending = NewPending(info.Env(), info.Env().Undefined());
      const Napi::Promise promise = pending->deferred.Promise();
      device.submit([this, pending, &device](uint64_t) {
        pending->failure = device.take_unobserved();
        Settle(pending);
      });
      return promise;
    });
  }

  // ---- facts ----
  Napi::Value Memory(const Napi::CallbackInfo& info) {
    return Guard(info, "memory", [&]() -> Napi::Value {
      const MemoryUse use = cpu_device().memory();
      Napi::Object result = Napi::Object::New(info.Env());
      const auto set = [&](const char* name, size_t value) {
        result.Set(name, Napi::Number::New(info.Env(), static_cast<double>(value)));
      };
      set("handles", handles_.live());
      set("liveBytes", use.live_bytes);
      set("peakBytes", use.peak_bytes);
      set("cachedBytes", use.cached_bytes);
      set("systemAllocations", use.system_allocations);
      return result;
    });
  }
  Napi::Value ResetPeak(const Napi::CallbackInfo& info) {
    return Guard(info, "resetPeak", [&] {
      cpu_device().reset_peak();
      return info.Env().Undefined();
    });
  }
  Napi::Value EmptyCache(const Napi::CallbackInfo& info) {
    return Guard(info, "emptyCache", [&] {
      cpu_device().empty_cache();
      return info.Env().Undefined();
    });
  }
  Napi::Value Info(const Napi::CallbackInfo& info) {
    return Guard(info, "info", [&]() -> Napi::Value {
      const Napi::Env env = info.Env();
      cpu_device();  // fails here, not at the first tensor, when the instruction set asked for is not to be had
      const CpuInfo cpu = cpu_info();
      Napi::Array available = Napi::Array::New(env, cpu.available.size());
      for (uint32_t i = 0; i < cpu.available.size(); ++i) available.Set(i, cpu.available[i]);
      Napi::Object result = Napi::Object::New(env);
      result.Set("isa", cpu.isa);
      result.Set("availableIsas", available);
      result.Set("numThreads", num_threads());
      result.Set("compiler", std::string(__VERSION__));
      return result;
    });
  }

  // ---- kernels ----
  template <class... P>
  void DefineOp(Napi::Env env, Napi::Object& op, const char* name, void (Kernels::*method)(P...),
                uint32_t optional = 0) {
    op.Set(name, Napi::Function::New(
                     env,
                     [this, name, method, optional](const Napi::CallbackInfo& info) {
                       return Guard(info, name, [&]() -> Napi::Value {
                         return Napi::Number::New(
                             info.Env(), static_cast<double>(call_kernel(info, handles_, name, method, optional)));
                       });
                     },
                     name));
  }
  void DefineOps(Napi::Env env, Napi::Object& op) {
    DefineOp(env, op, "copy", &Kernels::copy);
    DefineOp(env, op, "fill", &Kernels::fill);
    DefineOp(env, op, "random", &Kernels::random);
    DefineOp(env, op, "unary", &Kernels::unary);
    DefineOp(env, op, "binary", &Kernels::binary);
    DefineOp(env, op, "where", &Kernels::where);
    DefineOp(env, op, "reduce", &Kernels::reduce);
    DefineOp(env, op, "matmul", &Kernels::matmul, 1u << 2);  // bias
    DefineOp(env, op, "softmax", &Kernels::softmax);
    DefineOp(env, op, "softmaxGrad", &Kernels::softmax_grad);
    DefineOp(env, op, "embedding", &Kernels::embedding);
    DefineOp(env, op, "embeddingGrad", &Kernels::embedding_grad);
    DefineOp(env, op, "rmsNorm", &Kernels::rms_norm);
    DefineOp(env, op, "rmsNormGrad", &Kernels::rms_norm_grad);
    DefineOp(env, op, "rope", &Kernels::rope);
    DefineOp(env, op, "swiglu", &Kernels::swiglu);
    DefineOp(env, op, "swigluGrad", &Kernels::swiglu_grad);
    DefineOp(env, op, "crossEntropy", &Kernels::cross_entropy);
    DefineOp(env, op, "crossEntropyGrad", &Kernels::cross_entropy_grad);
    DefineOp(env, op, "linearCrossEntropy", &Kernels::linear_cross_entropy, 1u << 10 | 1u << 11);  // dhidden, dweight
    DefineOp(env, op, "attention", &Kernels::attention);
    DefineOp(env, op, "attentionGrad", &Kernels::attention_grad);
    DefineOp(env, op, "simplicialAttention", &Kernels::simplicial_attention);
    DefineOp(env, op, "simplicialAttentionGrad", &Kernels::simplicial_attention_grad);
    DefineOp(env, op, "globalNorm", &Kernels::global_norm);
    DefineOp(env, op, "adamwStep", &Kernels::adamw_step, 1u << 5);             // grad_scale
    DefineOp(env, op, "sonewStep", &Kernels::sonew_step, 1u << 7 | 1u << 20);  // grad_scale, dropped
  }

  HandleTable handles_;
  Napi::ThreadSafeFunction settle_;
  Napi::FunctionReference error_factory_;
  int pending_ = 0;  // promises not settled yet
};

}  // namespace

NODE_API_ADDON(Addon)

}  // namespace llmeff::binding
