// A device: memory, an in-order stream of work, and a table of kernels. The CPU is one (cpu/cpu_device.cc), each GPU
// another (cuda/cuda_device.cu).
//
// Work is validated and submitted on the caller's thread and runs later, in order. Memory is stream-ordered too: a
// block that is released goes back to the cache at once, and whoever gets it next submits after every earlier user of
// it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "llmeff/kernels.h"

namespace llmeff {

// Why a kernel did not do its work; or, on a device that runs ahead of its kernels, that it may not have: a check of
// values that is still to be made.
struct Failure {
  enum class State { kPending, kPassed, kFailed };

  std::string code, op, message;
  uint64_t ticket = 0;                 // of the call that failed
  std::atomic<bool> observed = false;  // somebody has been told
  std::atomic<State> state = State::kFailed;
  const void* check = nullptr;                  // the device's, while it is pending
  std::vector<std::shared_ptr<Failure>> parts;  // of several checks: it is what they are
};
using FailurePointer = std::shared_ptr<Failure>;

// The failure that it stands for by now; null while none has happened.
FailurePointer happened(const FailurePointer& failure);
// Adds what may still happen of it, each check once.
void add_pending(const FailurePointer& failure, std::vector<FailurePointer>& pending);
// All of these checks as one; null for none.
FailurePointer joined(const std::vector<FailurePointer>& pending);

class BlockPool;
class Device;
class Program;

// A block of device memory. It is made once and has one owner after another; each is told apart by its number.
struct Block {
  Block(Device* device, void* data, size_t capacity) : device(device), data(data), capacity(capacity) {}

  Device* const device;
  void* const data;
  const size_t capacity;
  size_t bytes = 0;                // that the present owner asked for
  uint64_t owner = 0;              // its number
  std::atomic<uint32_t> users{0};  // the buffers that share it
  Block* next = nullptr;           // in the cache
  std::shared_ptr<BlockPool> pool;  // that it returns to; null: the device's cache

  // Only touched by work on the stream: why the contents of the owner `failed` are not what their last writer should
  // have made; null when they are.
  FailurePointer failure;
  uint64_t failed = 0;
};

// The contents of a block under one owner, as work on the stream sees them; that of no block never fails.
class Contents {
 public:
  Contents() = default;
  explicit Contents(Block* block) : block_(block), owner_(block->owner) {}

  const Block* block() const { return block_; }
  bool may_have_failed() const { return holds_failure(); }
  FailurePointer failure() const { return holds_failure() ? block_->failure : nullptr; }
  // What the last writer made of them.
  void set(const FailurePointer& failure) const {
    if (block_ == nullptr || (failure == nullptr && block_->failure == nullptr)) return;
    block_->failure = failure;
    block_->failed = owner_;
  }

 private:
  bool holds_failure() const { return block_ != nullptr && block_->failure != nullptr && block_->failed == owner_; }

  Block* block_ = nullptr;
  uint64_t owner_ = 0;
};

// Shared ownership of a block, which returns to where it came from with the last of its users.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Block* block) : block_(block) { block->users.store(1, std::memory_order_relaxed); }
  Buffer(const Buffer& other) : block_(other.block_) {
    if (block_ != nullptr) block_->users.fetch_add(1, std::memory_order_relaxed);
  }
  Buffer(Buffer&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Buffer();

  explicit operator bool() const { return block_ != nullptr; }
  Device& device() const { return *block_->device; }
  void* data() const { return block_->data; }
  size_t bytes() const { return block_->bytes; }
  bool shared() const { return block_ != nullptr && block_->users.load(std::memory_order_relaxed) > 1; }
  Contents contents() const { return Contents(block_); }
  bool is_of(const BlockPool& pool) const { return block_ != nullptr && block_->pool.get() == &pool; }

 private:
  friend class BlockPool;
  Block* block_ = nullptr;
};

// Where arrays get their memory.
class Memory {
 public:
  virtual ~Memory() = default;
  // Throws Error(ERR_OUT_OF_MEMORY). Not for work on the stream.
  virtual Buffer allocate(size_t bytes) = 0;
};

// What the calls of one op took of the device's time.
struct OpTime {
  std::string op;
  int64_t calls;
  double milliseconds;
};

struct MemoryUse {
  size_t live_bytes, peak_bytes;  // in use, as asked for, rounded up to the cache's sizes
  size_t cached_bytes;            // free blocks held for reuse
  size_t system_allocations;      // blocks ever asked from the system: constant in a steady state
};

// A piece of queued work. It lies in the queue itself, so that submitting it takes no memory from the heap.
struct Work {
  void (*run)(Work* work, uint64_t ticket);  // once; destroys what the work holds
};

class Device : public Memory {
 public:
  static constexpr size_t kLargestWork = size_t{16} << 10;

  virtual std::string name() const = 0;
  virtual Kernels& kernels() = 0;
  // Whether every kernel takes bfloat16 and float16 arrays; otherwise the call layer gives some float32 copies.
  virtual bool takes_half() const { return false; }

  virtual MemoryUse memory() const = 0;
  virtual void reset_peak() = 0;
  virtual void empty_cache() = 0;

  // Queues body(ticket), which must not throw; waits while the queue is full. Returns the ticket.
  template <class F>
  uint64_t submit(F body) {
    struct Item : Work {
      explicit Item(F&& f) : Work{&execute}, body(std::move(f)) {}
      static void execute(Work* work, uint64_t ticket) {
        Item* const item = static_cast<Item*>(work);
        item->body(ticket);
        item->~Item();
      }
      F body;
    };
    static_assert(std::is_nothrow_move_constructible_v<F> && sizeof(Item) <= kLargestWork && alignof(Item) <= 16);
    new (reserve(sizeof(Item))) Item(std::move(body));
    return publish();
  }
  // Waits until everything submitted so far has been computed.
  virtual void synchronize() = 0;

  // Memory that the host and the kernels reach, for numbers on their way between the device and JavaScript. Null: the
  // kernels reach all memory of the host.
  virtual std::shared_ptr<void> staging(size_t) { return nullptr; }

  // For work on the stream: done(milliseconds) with the time on the device's clock at which all before this work had been
  // computed; on any thread. Differences mean something.
  virtual void clock(uint64_t ticket, std::function<void(double)> done) = 0;

  // For work on the stream: measures every call from here on; returns what was measured since the last time it was told so.
  virtual std::vector<OpTime> measure_ops(bool on) = 0;

  // For work on the stream, around the kernels of a call. What they update in place must stay as it is if one of the
  // pending checks fails. Returns the check that the kernels make of their values; null: none, or they have thrown.
  virtual void begin(const char*, uint64_t, const std::vector<FailurePointer>&) {}
  virtual FailurePointer end(uint64_t) { return nullptr; }
  // For work on the stream: done(lost) once everything before it has been computed and checked; on any thread. `lost` is
  // why the device computes no more, null as long as it does.
  virtual void finish(uint64_t, std::function<void(const FailurePointer& lost)> done) { done(nullptr); }
  // Within such a done(): the oldest check that failed and nobody has been told of.
  virtual FailurePointer take_unobserved_check() { return nullptr; }

  // For work on the stream: makes a recorded program ready to run, once. Throws Error.
  virtual void compile(Program&) {}
  // For work on the stream: runs it with the numbers that it has by now, as if its calls had been queued one by one.
  virtual void run(Program& program);

  // The oldest failure that nobody has been told of, for work that has run; to be called on the stream.
  FailurePointer take_unobserved();
  void record(FailurePointer failure) {
    if (unobserved_ == nullptr || unobserved_->observed) unobserved_ = std::move(failure);
  }

 protected:
  // Room at the end of the queue, 16-byte aligned, for the calling thread alone until it publishes what it has put
  // there.
  virtual void* reserve(size_t bytes) = 0;
  virtual uint64_t publish() noexcept = 0;

  friend class BlockPool;
  friend class Buffer;
  virtual void release(Block* block) = 0;

 private:
  FailurePointer unobserved_;
};

void return_to_pool(Block* block);

inline Buffer::~Buffer() {
  if (block_ == nullptr || block_->users.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (block_->pool == nullptr)
    block_->device->release(block_);
  else
    return_to_pool(block_);
}

Device& cpu_device();

// What the CPU device found: instruction set in use, those that this binary has and this CPU can run, worker threads.
struct CpuInfo {
  std::string isa;
  std::vector<std::string> available;
};
CpuInfo cpu_info();

}  // namespace llmeff
