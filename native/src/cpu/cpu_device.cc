// The CPU as a device: caching allocator, executor thread, and the kernels for its instruction set.
#include <chrono>
#include <map>
#include <mutex>
#include <utility>

#include "runtime/allocator.h"
#include "cpu/dispatch.h"
#include "runtime/executor.h"
#include "llmeff/device.h"
#include "llmeff/error.h"

namespace llmeff {
namespace {

// More than the ops of a training step, so that the thread that submits them seldom waits; small enough to bound what
// is in flight.
constexpr size_t kQueueCapacity = 8192;

class CpuDevice final : public Device {
 public:
  CpuDevice() : kernels_(cpu::best_kernels()), allocator_(this), executor_(kQueueCapacity) {}

  std::string name() const override { return "cpu"; }
  Kernels& kernels() override { return kernels_; }

  Buffer allocate(size_t bytes) override {
    Block* block = allocator_.allocate(bytes);
    if (block == nullptr) {
      empty_cache();
      block = allocator_.allocate(bytes);
    }
    if (block == nullptr)
      fail("ERR_OUT_OF_MEMORY",
           "[cpu] out of memory: %zu bytes were asked for while %zu are live. Dispose tensors, use scope(), or a "
           "smaller batch.",
           bytes, allocator_.use().live_bytes);
    Buffer buffer(block);
    if (allocator_.missed())
      if (auto surplus = allocator_.detach_surplus(); !surplus.empty())
        submit([this, surplus = std::move(surplus)](uint64_t) { allocator_.free(surplus); });
    return buffer;
  }
  MemoryUse memory() const override { return allocator_.use(); }
  void reset_peak() override { allocator_.reset_peak(); }
  void empty_cache() override {
    // One at a time: who asks for memory finds all that another thread is about to free.
    std::lock_guard lock(emptying_);
    const auto blocks = allocator_.detach_all();
    synchronize();
    allocator_.free(blocks);
  }

  void synchronize() override { executor_.drain(); }

  void clock(uint64_t, std::function<void(double)> done) override { done(now()); }
  std::vector<OpTime> measure_ops(bool on) override {
    measuring_ = on;
    std::vector<OpTime> times;
    for (const auto& [op, time] : std::exchange(times_, {})) times.push_back(time);
    return times;
  }
  void begin(const char* op, uint64_t, const std::vector<FailurePointer>&) override {
    if (measuring_) op_ = op, began_ = now();
  }
  FailurePointer end(uint64_t) override {
    if (measuring_) {
      OpTime& time = times_.try_emplace(op_, OpTime{op_, 0, 0}).first->second;
      ++time.calls;
      time.milliseconds += now() - began_;
    }
    return nullptr;
  }

 protected:
  void* reserve(size_t bytes) override { return executor_.reserve(bytes); }
  uint64_t publish() noexcept override { return executor_.publish(); }
  void release(Block* block) override { allocator_.release(block); }

 private:
  static double now() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  // Of work on the stream.
  bool measuring_ = false;
  const char* op_ = "";
  double began_ = 0;
  std::map<std::string, OpTime> times_;

  Kernels& kernels_;
  CachingAllocator allocator_;
  std::mutex emptying_;
  Executor executor_;
};

}  // namespace

// Never destroyed: tensors of other threads may outlive any moment at which it could be.
Device& cpu_device() {
  static CpuDevice* const device = new CpuDevice();
  return *device;
}

}  // namespace llmeff
