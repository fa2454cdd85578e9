// Calls that are recorded instead of queued, to be run again and again: the body of a training step whose shapes stay.
//
// Nothing is computed while a program is recorded. What its calls make lives in memory of its own, which nobody else
// gets until the program releases it; what they use of the outside is held. Both are where the calls found them in
// every run. Numbers that change from run to run are named by position and set before each.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "llmeff/call.h"
#include "llmeff/device.h"

namespace llmeff {

class RecordedCall {
 public:
  RecordedCall(const char* op, uint64_t ticket, bool takes_numbers)
      : op(op), ticket(ticket), takes_numbers(takes_numbers) {}
  virtual ~RecordedCall() = default;

  const char* const op;
  const uint64_t ticket;
  const bool takes_numbers;

  // For work on the stream.
  virtual void set_numbers(const double* numbers) = 0;
  // As a queued call runs.
  virtual FailurePointer run(Device& device) = 0;
  // Its kernels alone.
  virtual void launch(Kernels& kernels) = 0;
  // What it writes, in place or anew.
  virtual void add_written(std::vector<Contents>& all) = 0;
};

class Program final : public Memory {
 public:
  // What a device makes of it.
  struct Compiled {
    virtual ~Compiled() = default;
  };

  explicit Program(Device& device);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() override;

  Device& device() const { return device_; }

  // On the thread that records it. Throws Error(ERR_OUT_OF_MEMORY).
  Buffer allocate(size_t bytes) override;
  // A call that comes uses the buffer.
  void use(const Buffer& buffer);
  // Names one of its numbers.
  int number(uint64_t index);
  // Returns a ticket of its own, which names the call in each of its runs. `op` must live as long as the program runs.
  template <class... P>
  uint64_t add(const char* op, Half half, Call<P...> call) {
    std::vector<Buffer> scratch;  // for other calls afterwards
    if (half == Half::kWidened && !device_.takes_half()) call.widen(*this, scratch);
    const uint64_t ticket = next_ticket_++;
    calls_.push_back(std::make_unique<Recorded<P...>>(op, ticket, std::move(call)));
    return ticket;
  }
  // Gives up its memory. Runs that were queued before still come before all who get it next.
  void release();

  size_t numbers() const { return numbers_; }                    // how many it takes
  const std::vector<double>& values() const { return values_; }  // of the numbers, in the present run

  // For work on the stream, before it is run.
  void begin(std::vector<double> numbers);
  // The memory that it makes is as new.
  void forget_failures();
  const std::vector<std::unique_ptr<RecordedCall>>& calls() const { return calls_; }
  // What its calls use and it didn't make.
  const std::vector<Contents>& outside() const { return outside_; }
  std::unique_ptr<Compiled> compiled;

 private:
  template <class... P>
  class Recorded final : public RecordedCall {
   public:
    Recorded(const char* op, uint64_t ticket, Call<P...>&& call)
        : RecordedCall(op, ticket, call.takes_numbers()), call_(std::move(call)) {}

    void set_numbers(const double* numbers) override { call_.set_numbers(numbers); }
    FailurePointer run(Device& device) override { return call_.run(device, op, ticket); }
    void launch(Kernels& kernels) override { call_.launch(kernels); }
    void add_written(std::vector<Contents>& all) override {
      call_.each_array([&]<class A>(const A& array) {
        if (A::kWritten) all.push_back(array.contents);
      });
    }

   private:
    Call<P...> call_;
  };

  static std::atomic<uint64_t> next_ticket_;

  Device& device_;
  const std::shared_ptr<BlockPool> pool_;
  std::unordered_map<const void*, Buffer> held_;  // by address
  std::vector<Contents> outside_;
  size_t numbers_ = 0;
  std::vector<double> values_;
  std::vector<std::unique_ptr<RecordedCall>> calls_;
};

}  // namespace llmeff
