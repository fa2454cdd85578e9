// Arrays on a device and calls of kernels in a program, as tests of programs need them.
#pragma once

#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "llmeff/call.h"
#include "llmeff/device.h"
#include "llmeff/program.h"
#include "row_major.h"

namespace llmeff::test {

template <class... P>
Call<P...> numbered(void (Kernels::*kernel)(P...), Argument<P>... arguments) {
  return Call<P...>(kernel, std::move(arguments)...);
}

// An array that a program makes, or one of the outside.
class Stored {
 public:
  Stored(Device& device, DType dtype, const std::vector<int64_t>& shape, Program* program = nullptr)
      : device_(&device) {
    view_ = row_major(nullptr, dtype, shape);
    const auto bytes = static_cast<size_t>(view_.size() * item_size(dtype));
    buffer_ = program != nullptr ? program->allocate(bytes) : device.allocate(bytes);
    view_.data = buffer_.data();
  }

  const View& view() const { return view_; }
  const Buffer& buffer() const { return buffer_; }
  // As the device counts them.
  size_t bytes() const { return (buffer_.bytes() + 511) / 512 * 512; }

  Argument<const In&> in() const { return argument<In>(view_); }
  Argument<const Out&> out() const { return argument<Out>(view_); }
  Argument<const InOut&> in_out() const { return argument<InOut>(view_); }
  Argument<const Out&> row_out(int64_t row) const {
    View part = view_;
    part.shape[0] = 1;
    part.data = static_cast<char*>(view_.data) + row * view_.strides[0] * item_size(view_.dtype);
    Argument<const Out&> made = argument<Out>(part);
    made.partial = true;
    return made;
  }
  template <class V>
  Argument<const List<V>&> list() const {
    Argument<const List<V>&> made;
    static_cast<ArrayArgument<V>&>(made.arrays.emplace_back()) = argument<V>(view_);
    return made;
  }

  // Queued.
  void fill(double value) const {
    submit_call(*device_, "fill", Half::kNative, numbered(&Kernels::fill, Argument<double>{value}, out()),
                [](const FailurePointer&) {});
  }
  // In float64, when everything queued before has been computed.
  std::vector<double> values() const {
    const auto size = static_cast<size_t>(view_.size());
    std::shared_ptr<void> staged = device_->staging(size * sizeof(double));
    if (staged == nullptr) staged = std::shared_ptr<double[]>(new double[size]);
    View wide = view_;
    wide.dtype = DType::kF64;
    wide.data = staged.get();
    Argument<const Out&> to;
    static_cast<View&>(to.view) = wide;
    submit_call(*device_, "copy", Half::kNative, numbered(&Kernels::copy, in(), std::move(to)),
                [](const FailurePointer&) {});
    device_->synchronize();
    const auto* const numbers = static_cast<const double*>(staged.get());
    return {numbers, numbers + size};
  }
  // Why it isn't what it should be, for all that was queued and has been computed.
  FailurePointer failure() const {
    std::promise<FailurePointer> told;
    device_->submit([&, contents = buffer_.contents()](uint64_t) {
      told.set_value(contents.may_have_failed() ? happened(contents.failure()) : nullptr);
    });
    return told.get_future().get();
  }

 private:
  template <class V>
  Argument<const V&> argument(const View& view) const {
    Argument<const V&> made;
    static_cast<View&>(made.view) = view;
    made.contents = buffer_.contents();
    return made;
  }

  Device* device_;
  Buffer buffer_;
  View view_;
};

// l2, keep, beta1, 1 - beta1, beta2, 1 - beta2, root_scale, eps, mean_rate, grad_rate
inline std::vector<double> adam_factors(double root_scale, double rate) {
  return {0, 0.999, 0.9, 0.1, 0.95, 0.05, root_scale, 1e-8, rate, 0};
}
// AdamW's step of p with the gradient g.
inline auto adam_call(const Stored& p, const Stored& g, const Stored& m, const Stored& v,
                      Argument<const List<double>&> factors) {
  Argument<const List<InOut>&> states = m.list<InOut>();
  states.arrays.push_back(std::move(v.list<InOut>().arrays[0]));
  return numbered(&Kernels::optimizer_step, Argument<UpdateRule>{UpdateRule::kAdam}, p.list<InOut>(),
                  Argument<const List<InOut>&>{}, g.list<In>(), std::move(states), std::move(factors),
                  Argument<const In&>{});
}
// The same in a program, of whose numbers the one at `rate` is the rate and the one at `root_scale` the root's scale.
inline void record_adam(Program& program, const Stored& p, const Stored& g, const Stored& m, const Stored& v,
                        uint64_t rate, uint64_t root_scale) {
  for (const Stored* array : {&p, &g, &m, &v}) program.use(array->buffer());
  Argument<const List<double>&> factors;
  factors.numbers = adam_factors(0, 0);
  factors.replaced = {{6, program.number(root_scale)}, {8, program.number(rate)}};
  program.add("optimizerStep", Half::kNative, adam_call(p, g, m, v, std::move(factors)));
}

// out = a + b, all of them used by the program.
inline void record_add(Program& program, const Stored& a, const Stored& b, const Stored& out) {
  for (const Stored* array : {&a, &b, &out}) program.use(array->buffer());
  program.add("add", Half::kNative,
              numbered(&Kernels::binary, Argument<BinaryOp>{BinaryOp::kAdd}, a.in(), b.in(), out.out()));
}

inline void run(const std::shared_ptr<Program>& program, std::vector<double> numbers) {
  Device& device = program->device();
  device.submit([&device, program, numbers = std::move(numbers)](uint64_t) {
    program->begin(numbers);
    device.run(*program);
  });
}

// Null when it is ready to run.
inline FailurePointer compile(Program& program, std::vector<double> numbers) {
  std::promise<FailurePointer> compiled;
  program.device().submit([&](uint64_t ticket) {
    try {
      program.begin(numbers);
      program.device().compile(program);
      compiled.set_value(nullptr);
    } catch (...) {
      compiled.set_value(current_failure("compile", ticket));
    }
  });
  return compiled.get_future().get();
}

}  // namespace llmeff::test
