// Calls of kernels that wait in a device's queue: what they hold of their arguments, how failures are passed on, and
// half-precision arrays for kernels that compute in float32.
//
// An op whose input failed does not run; its outputs fail likewise, and what it would have updated in place keeps its
// value.
#pragma once

#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "llmeff/device.h"
#include "llmeff/kernels.h"

namespace llmeff {

// What a kernel does with bfloat16 and float16 arrays.
enum class Half {
  kWidened,  // nothing: it sees float32 copies, and what it writes is rounded once
  kNative,   // takes them as they are
};

inline bool is_half(DType dtype) {
  return dtype == DType::kBF16 || dtype == DType::kF16;
}

// A float32 array for the values of `narrow`, row-major; its broadcast axes stay broadcast. `buffer` receives its
// memory.
View widened(const View& narrow, Device& device, Buffer& buffer);
// An array's elements, each once: broadcast axes cut to size 1.
View distinct(const View& view);

// What a queued call holds of a kernel's parameter of type P.
template <class P>
struct Argument {
  P value{};

  P get() { return value; }
  template <class F>
  void each_array(F&&) {}
};

template <class V>
struct ArrayArgument {
  V view{};
  Contents contents;
  // Of an Out: there is more in the block than is written, which keeps what it has, a failure included.
  bool partial = false;
  std::unique_ptr<View> narrow;  // the array itself when `view` is a float32 copy of it

  void widen(Device& device, std::vector<Buffer>& scratch) {
    if (!view.present() || !is_half(view.dtype)) return;
    narrow = std::make_unique<View>(view);
    static_cast<View&>(view) = widened(*narrow, device, scratch.emplace_back());
  }
  FailurePointer inherited() const { return !std::is_same_v<V, Out> || partial ? contents.failure() : nullptr; }
  void load(Kernels& kernels) const {
    if constexpr (!std::is_same_v<V, Out>)
      if (narrow) kernels.copy(In{distinct(*narrow)}, Out{distinct(view)});
  }
  void store(Kernels& kernels) const {
    if constexpr (!std::is_same_v<V, In>)
      if (narrow) kernels.copy(In{view}, Out{*narrow});
  }
  // The call was made, or (failure) it was not or did not end, or (pending) that will turn out.
  void settle(const FailurePointer& failure, bool began) const {
    if (std::is_same_v<V, Out> || (std::is_same_v<V, InOut> && failure != nullptr && began)) contents.set(failure);
  }
  void settle_pending(const FailurePointer& all, const FailurePointer& own) const {
    if constexpr (std::is_same_v<V, Out>) contents.set(all);
    if constexpr (std::is_same_v<V, InOut>) {
      if (own == nullptr) return;  // an update that the checks of its inputs hold back, if they fail
      std::vector<FailurePointer> checks{own};
      if (contents.may_have_failed()) add_pending(contents.failure(), checks);
      contents.set(joined(checks));
    }
  }
};

template <class V>
requires std::is_base_of_v<View, V>
struct Argument<const V&> : ArrayArgument<V> {
  const V& get() { return this->view; }
  template <class F>
  void each_array(F&& f) {
    f(static_cast<ArrayArgument<V>&>(*this));
  }
};

template <class V>
struct Argument<const List<V>&> {
  std::vector<ArrayArgument<V>> arrays;
  std::vector<V> views;
  List<V> list;

  const List<V>& get() {
    views.clear();
    for (const auto& array : arrays) views.push_back(array.view);
    list = {views.data(), static_cast<int64_t>(views.size())};
    return list;
  }
  template <class F>
  void each_array(F&& f) {
    for (auto& array : arrays) f(array);
  }
};

template <class N>
requires std::is_arithmetic_v<N>
struct Argument<const List<N>&> {
  std::vector<N> numbers;
  List<N> list;

  const List<N>& get() {
    list = {numbers.data(), static_cast<int64_t>(numbers.size())};
    return list;
  }
  template <class F>
  void each_array(F&&) {}
};

// The exception that is being handled, as a failure of an op.
FailurePointer current_failure(const char* op, uint64_t ticket);

template <class... P>
class Call {
 public:
  using Method = void (Kernels::*)(P...);

  explicit Call(Method method, Argument<P>... arguments) : method_(method), arguments_(std::move(arguments)...) {}
  // With arguments that are read, in order, by read(argument, position).
  template <class R>
  Call(Method method, const R& read) : method_(method) {
    [&]<size_t... I>(std::index_sequence<I...>) {
      (read(std::get<I>(arguments_), I), ...);
    }
    (std::index_sequence_for<P...>{});
  }

  template <class F>
  void each_array(F&& f) {
    std::apply([&](auto&... argument) { (argument.each_array(f), ...); }, arguments_);
  }

  // On the stream. Returns the failure or null; of a device that runs ahead also what may turn out to be one.
  FailurePointer run(Device& device, const char* op, uint64_t ticket) {
    FailurePointer failure, own;
    std::vector<FailurePointer> pending;
    each_array([&](const auto& array) {
      if (failure != nullptr || !array.contents.may_have_failed()) return;
      const FailurePointer inherited = array.inherited();
      if (inherited == nullptr) return;
      failure = happened(inherited);
      if (failure == nullptr) add_pending(inherited, pending);
    });
    const bool began = failure == nullptr;
    if (began) {
      try {
        Kernels& kernels = device.kernels();
        device.begin(op, ticket, pending);
        each_array([&](const auto& array) { array.load(kernels); });
        std::apply([&](auto&... argument) { (kernels.*method_)(argument.get()...); }, arguments_);
        each_array([&](const auto& array) { array.store(kernels); });
        own = device.end(ticket);
      } catch (...) {
        failure = current_failure(op, ticket);
        device.record(failure);
      }
    }
    if (own != nullptr) pending.push_back(own);
    if (failure == nullptr && !pending.empty()) {
      failure = joined(pending);
      each_array([&](const auto& array) { array.settle_pending(failure, own); });
    } else {
      each_array([&](const auto& array) { array.settle(failure, began); });
    }
    return failure;
  }

 private:
  Method method_;
  std::tuple<Argument<P>...> arguments_;
};

// Queues a call; its ticket names it in a Failure. done(failure or null) is called on the stream afterwards. `op` must
// live as long as the program.
template <class Done, class... P>
uint64_t submit_call(Device& device, const char* op, Half half, Call<P...> call, Done done) {
  // Released at the end of this function: stream-ordered memory serves work that was submitted before.
  std::vector<Buffer> scratch;
  if (half == Half::kWidened && !device.takes_half()) call.each_array([&](auto& array) { array.widen(device, scratch); });
  return device.submit([&device, op, call = std::move(call), done = std::move(done)](uint64_t ticket) mutable {
    done(call.run(device, op, ticket));
  });
}

}  // namespace llmeff
