// From JavaScript values to kernel arguments. A kernel is bound by its member pointer alone: its parameter types say
// how each argument is read and which memory it touches.
#pragma once

#include <napi.h>

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "binding/handles.h"
#include "llmeff/device.h"
#include "llmeff/error.h"
#include "llmeff/kernels.h"

namespace llmeff::binding {

DType dtype_argument(const Napi::Value& value);
Napi::TypedArray typed_array_argument(const Napi::Value& value);
DType dtype_of(const Napi::TypedArray& array);
// Its first element; the memory may be shared between threads of JavaScript.
void* data_of(const Napi::TypedArray& array);
View contiguous_view(void* data, DType dtype, const std::vector<int64_t>& shape);

// Notes that an array is written in full. When it is a part of its block, the rest keeps what it has, a failure
// included.
inline void note_write(Access& access, const Array& array) {
  const auto& status = array.buffer->status();
  access.out.push_back(status);
  if (static_cast<size_t>(array.view.size() * item_size(array.view.dtype)) != array.buffer->bytes())
    access.in.push_back(status);
}

// What the arguments of one call touch.
struct CallContext {
  explicit CallContext(const HandleTable& handles) : handles(handles) {}

  const HandleTable& handles;
  Device* device = nullptr;
  Access access;
  bool host = false;   // some argument is a typed array: the call must end before it returns
  bool empty = false;  // some array has no elements

  template <class V>
  V view(const Napi::Value& value);
};

inline bool absent(const Napi::Value& value) {
  return value.IsNull() || value.IsUndefined();
}

template <class V>
V CallContext::view(const Napi::Value& value) {
  V view{};
  if (absent(value)) return view;
  if (value.IsTypedArray()) {
    const auto array = value.As<Napi::TypedArray>();
    static_cast<View&>(view) =
        contiguous_view(data_of(array), dtype_of(array), {static_cast<int64_t>(array.ElementLength())});
    if (device != nullptr && device != &cpu_device())
      fail("ERR_DEVICE", "[native] typed arrays go with arrays on the CPU only.");
    device = &cpu_device();
    host = true;
    empty |= array.ElementLength() == 0;
    return view;
  }
  const Array& array = handles.at(value.As<Napi::Number>().DoubleValue());
  static_cast<View&>(view) = array.view;
  if (array.buffer == nullptr) {
    empty = true;
    return view;
  }
  Device& owner = array.buffer->device();
  if (device != nullptr && device != &owner)
    fail("ERR_DEVICE", "[native] arrays of one call must be on one device; received %s and %s.", device->name().c_str(),
         owner.name().c_str());
  device = &owner;
  const auto& status = array.buffer->status();
  if constexpr (std::is_same_v<V, In>) access.in.push_back(status);
  if constexpr (std::is_same_v<V, Out>) note_write(access, array);
  if constexpr (std::is_same_v<V, InOut>) access.in_out.push_back(status);
  return view;
}

// Argument<P> reads and holds what a kernel parameter of type P refers to while the call waits in the queue.
template <class P>
struct Argument;

template <class P>
requires std::is_arithmetic_v<P>
struct Argument<P> {
  P value;
  Argument(CallContext&, const Napi::Value& v) {
    if constexpr (std::is_same_v<P, bool>)
      value = v.ToBoolean().Value();
    else if constexpr (std::is_integral_v<P>)
      value = v.As<Napi::Number>().Int64Value();
    else
      value = v.As<Napi::Number>().DoubleValue();
  }
  P get() const { return value; }
};

template <class E>
int enum_count();
template <>
inline int enum_count<UnaryOp>() {
  return kUnaryOpCount;
}
template <>
inline int enum_count<BinaryOp>() {
  return kBinaryOpCount;
}
template <>
inline int enum_count<ReduceOp>() {
  return kReduceOpCount;
}
template <>
inline int enum_count<Activation>() {
  return kActivationCount;
}
template <>
inline int enum_count<Distribution>() {
  return kDistributionCount;
}
template <>
inline int enum_count<Graft>() {
  return kGraftCount;
}

template <class P>
requires std::is_enum_v<P>
struct Argument<P> {
  P value;
  Argument(CallContext&, const Napi::Value& v) {
    const int number = v.As<Napi::Number>().Int32Value();
    if (number < 0 || number >= enum_count<P>())
      fail("ERR_OPTION", "[native] %d names no member of the enumeration.", number);
    value = static_cast<P>(number);
  }
  P get() const { return value; }
};

template <class V>
requires std::is_base_of_v<View, V>
struct Argument<const V&> {
  V value;
  Argument(CallContext& context, const Napi::Value& v) : value(context.view<V>(v)) {}
  const V& get() const { return value; }
};

template <class V>
struct Argument<const List<V>&> {
  std::vector<V> items;
  List<V> list;
  Argument(CallContext& context, const Napi::Value& v) {
    if (absent(v)) return;
    const auto array = v.As<Napi::Array>();
    items.reserve(array.Length());
    for (uint32_t i = 0; i < array.Length(); ++i) {
      if constexpr (std::is_same_v<V, int64_t>)
        items.push_back(array.Get(i).template As<Napi::Number>().Int64Value());
      else {
        if (absent(array.Get(i))) fail("ERR_OPTION", "[native] entry %u of a list of arrays is absent.", i);
        items.push_back(context.view<V>(array.Get(i)));
        // The call does nothing when an argument is empty; one entry must not stop the work on the others.
        if (items.back().size() == 0)
          fail("ERR_SHAPE", "[native] entry %u of a list of arrays has no elements. Leave it out.", i);
      }
    }
  }
  const List<V>& get() {
    list = {items.data(), static_cast<int64_t>(items.size())};
    return list;
  }
};

// Queues one kernel. Returns its ticket; 0 when there was nothing to do. Bit i of `optional`: argument i is an array
// that may be absent.
template <class... P>
uint64_t call_kernel(const Napi::CallbackInfo& info, const HandleTable& handles, const char* name,
                     void (Kernels::*method)(P...), uint32_t optional) {
  if (info.Length() != sizeof...(P))
    fail("ERR_OPTION", "[native] %s takes %zu arguments; received %zu.", name, sizeof...(P), info.Length());
  constexpr bool kIsArray[] = {std::is_base_of_v<View, std::remove_cvref_t<P>>...};
  for (size_t i = 0; i < sizeof...(P); ++i)
    if (kIsArray[i] && (optional >> i & 1) == 0 && absent(info[i]))
      fail("ERR_OPTION", "[native] argument %zu of %s is absent.", i, name);
  CallContext context(handles);
  const auto arguments = [&]<size_t... I>(std::index_sequence<I...>) {
    return std::make_shared<std::tuple<Argument<P>...>>(std::tuple<Argument<P>...>{Argument<P>(context, info[I])...});
  }
  (std::index_sequence_for<P...>{});
  if (context.empty || context.device == nullptr) return 0;
  auto work = [arguments, method](Kernels& kernels) {
    std::apply([&](auto&... argument) { (kernels.*method)(argument.get()...); }, *arguments);
  };
  if (!context.host) return submit_op(*context.device, name, std::move(context.access), std::move(work));
  std::shared_ptr<Failure> failure;
  const uint64_t ticket = submit_op(*context.device, name, std::move(context.access), std::move(work),
                                    [&failure](const std::shared_ptr<Failure>& f) { failure = f; });
  context.device->synchronize();
  if (failure) {
    failure->observed = true;
    throw Error(failure->code, failure->message);
  }
  return ticket;
}

}  // namespace llmeff::binding
