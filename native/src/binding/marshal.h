// From JavaScript values to kernel arguments. A kernel is bound by its member pointer alone: its parameter types say
// how each argument is read and which memory it touches.
#pragma once

#include <napi.h>

#include <type_traits>
#include <utility>

#include "binding/arguments.h"
#include "binding/handles.h"
#include "llmeff/call.h"
#include "llmeff/device.h"
#include "llmeff/error.h"
#include "llmeff/kernels.h"

namespace llmeff::binding {

DType dtype_of(const Napi::TypedArray& array);
// Its first element; the memory may be shared between threads of JavaScript.
void* data_of(const Napi::TypedArray& array);
View contiguous_view(void* data, DType dtype, const int64_t* shape, int rank);
// Exchanges the last two axes.
void transpose(View& view);

// An array as an argument of queued work.
template <class V>
ArrayArgument<V> array_argument(const Array& array) {
  ArrayArgument<V> argument;
  static_cast<View&>(argument.view) = array.view;
  if (!array.buffer) return argument;
  argument.contents = array.buffer.contents();
  argument.partial = static_cast<size_t>(array.view.size() * item_size(array.view.dtype)) != array.buffer.bytes();
  return argument;
}

// What the arguments of one call have in common.
struct CallContext {
  const HandleTable& handles;
  Device* device = nullptr;
  bool host = false;   // some argument is a typed array: the call must end before it returns
  bool empty = false;  // some array has no elements

  // An array of the engine or a typed array; false when the value is null or undefined.
  template <class V>
  bool read(const Napi::Value& value, ArrayArgument<V>& argument);

 private:
  void check_device(Device& owner);
  void read_typed_array(const Napi::Value& value, View& view);
};

template <class V>
bool CallContext::read(const Napi::Value& value, ArrayArgument<V>& argument) {
  double handle;
  if (is_number(value, handle)) {
    const Array& array = handles.at(handle);
    argument = array_argument<V>(array);
    if (array.buffer)
      check_device(array.buffer.device());
    else
      empty = true;
    return true;
  }
  if (value.IsNull() || value.IsUndefined()) return false;
  read_typed_array(value, argument.view);
  return true;
}

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
template <>
inline int enum_count<UpdateRule>() {
  return kUpdateRuleCount;
}

// Read what JavaScript passes for a kernel's parameter. Refused: an absent array unless it may be absent.
struct Reader {
  CallContext& context;
  const Arguments& info;
  const char* op;
  uint32_t optional;    // bit i: argument i is an array that may be absent
  uint32_t transposed;  // bit i: argument i is given with its last two axes exchanged

  template <class P>
  requires std::is_arithmetic_v<P>
  void operator()(Argument<P>& argument, size_t i) const {
    if constexpr (std::is_same_v<P, bool>)
      argument.value = info[i].ToBoolean().Value();
    else if constexpr (std::is_integral_v<P>)
      argument.value = integer_argument(info[i]);
    else
      argument.value = number_argument(info[i]);
  }

  template <class P>
  requires std::is_enum_v<P>
  void operator()(Argument<P>& argument, size_t i) const {
    const int64_t number = integer_argument(info[i]);
    if (number < 0 || number >= enum_count<P>())
      fail("ERR_OPTION", "[native] %lld names no member of the enumeration.", static_cast<long long>(number));
    argument.value = static_cast<P>(number);
  }

  template <class V>
  requires std::is_base_of_v<View, V>
  void operator()(Argument<const V&>& argument, size_t i) const {
    if (!context.read(info[i], argument) && (optional >> i & 1) == 0)
      fail("ERR_OPTION", "[native] argument %zu of %s is absent.", i, op);
    if (transposed >> i & 1) transpose(argument.view);
  }

  template <class V>
  void operator()(Argument<const List<V>&>& argument, size_t i) const {
    if (info[i].IsNull() || info[i].IsUndefined()) return;
    const auto list = info[i].As<Napi::Array>();
    for (uint32_t k = 0; k < list.Length(); ++k) {
      if constexpr (std::is_same_v<V, int64_t>) {
        argument.numbers.push_back(integer_argument(list.Get(k)));
      } else if constexpr (std::is_same_v<V, double>) {
        argument.numbers.push_back(number_argument(list.Get(k)));
      } else {
        auto& array = argument.arrays.emplace_back();
        if (!context.read(list.Get(k), array))
          fail("ERR_OPTION", "[native] entry %u of a list of arrays is absent.", k);
        // The call does nothing when an argument is empty; one entry must not stop the work on the others.
        if (array.view.size() == 0)
          fail("ERR_SHAPE", "[native] entry %u of a list of arrays has no elements. Leave it out.", k);
      }
    }
  }
};

// How a kernel is called.
struct Traits {
  uint32_t optional = 0;    // bit i: argument i is an array that may be absent
  uint32_t transposed = 0;  // bit i: argument i is an array that is given with its last two axes exchanged
  Half half = Half::kWidened;
};

// Queues one kernel. Returns its ticket; 0 when there was nothing to do.
template <class... P>
uint64_t call_kernel(const Arguments& info, const HandleTable& handles, const char* op, void (Kernels::*method)(P...),
                     Traits traits) {
  static_assert(sizeof...(P) <= Arguments::kMost);
  if (info.Length() != sizeof...(P))
    fail("ERR_OPTION", "[native] %s takes %zu arguments; received %zu.", op, sizeof...(P), info.Length());
  CallContext context{handles};
  Call<P...> call(method, Reader{context, info, op, traits.optional, traits.transposed});
  if (context.empty || context.device == nullptr) return 0;
  Device& device = *context.device;
  if (!context.host) return submit_call(device, op, traits.half, std::move(call), [](const FailurePointer&) {});
  FailurePointer failure;
  const uint64_t ticket =
      submit_call(device, op, traits.half, std::move(call), [&failure](const FailurePointer& f) { failure = f; });
  device.synchronize();
  if (failure) {
    failure->observed = true;
    throw Error(failure->code, failure->message);
  }
  return ticket;
}

}  // namespace llmeff::binding
