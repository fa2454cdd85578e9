// The CPU as a device: caching allocator, executor thread, and the kernels for its instruction set.
#include <mutex>
#include <utility>

#include "cpu/allocator.h"
#include "cpu/dispatch.h"
#include "cpu/executor.h"
#include "llmeff/device.h"
#include "llmeff/error.h"

namespace llmeff {
namespace {

// More than the ops of a training step, so that the thread that submits them seldom waits; small enough to bound what
// is in flight.
constexpr size_t kQueueCapacity = 8192;

class CpuDevice final : public Device {
 public:
  CpuDevice() : kernels_(cpu::best_kernels()), executor_(kQueueCapacity) {}

  std::string name() const override { return "cpu"; }
  Kernels& kernels() override { return kernels_; }

  std::shared_ptr<Buffer> allocate(size_t bytes) override {
    size_t capacity = 0;
    void* data = allocator_.allocate(bytes, capacity);
    if (data == nullptr) {
      empty_cache();
      data = allocator_.allocate(bytes, capacity);
    }
    if (data == nullptr)
      fail("ERR_OUT_OF_MEMORY",
           "[cpu] out of memory: %zu bytes were asked for while %zu are live. Dispose tensors, use scope(), or a "
           "smaller batch.",
           bytes, allocator_.use().live_bytes);
    auto buffer = std::make_shared<Buffer>(*this, data, bytes, capacity);
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

  uint64_t submit(std::function<void(uint64_t)> work) override { return executor_.submit(std::move(work)); }
  void synchronize() override { executor_.drain(); }

 protected:
  void release(void* data, size_t bytes, size_t capacity) override { allocator_.release(data, bytes, capacity); }

 private:
  Kernels& kernels_;
  cpu::CachingAllocator allocator_;
  std::mutex emptying_;
  cpu::Executor executor_;
};

}  // namespace

// Never destroyed: tensors of other threads may outlive any moment at which it could be.
Device& cpu_device() {
  static CpuDevice* const device = new CpuDevice();
  return *device;
}

}  // namespace llmeff
