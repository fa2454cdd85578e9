// A device: memory, an in-order stream of work, and a table of kernels. The CPU is one (cpu/cpu_device.cc); a CUDA
// device is another.
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
#include <string>
#include <vector>

#include "llmeff/kernels.h"

namespace llmeff {

// Why a kernel did not do its work.
struct Failure {
  std::string code, op, message;
  uint64_t ticket = 0;                 // of the call that failed
  std::atomic<bool> observed = false;  // somebody has been told
};

// Whether the contents of a block are what its last writer should have made. Only touched by work running on the
// stream.
struct Status {
  std::shared_ptr<Failure> failure;
};

class Device;

// A block of device memory; returns to the device's cache when the last view of it is released.
class Buffer {
 public:
  Buffer(Device& device, void* data, size_t bytes, size_t capacity)
      : device_(device), data_(data), bytes_(bytes), capacity_(capacity), status_(std::make_shared<Status>()) {}
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Device& device() const { return device_; }
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }        // asked for
  size_t capacity() const { return capacity_; }  // of the block
  const std::shared_ptr<Status>& status() const { return status_; }

 private:
  Device& device_;
  void* data_;
  size_t bytes_, capacity_;
  std::shared_ptr<Status> status_;
};

struct MemoryUse {
  size_t live_bytes, peak_bytes;  // in use, as asked for, rounded up to the cache's sizes
  size_t cached_bytes;            // free blocks held for reuse
  size_t system_allocations;      // blocks ever asked from the system: constant in a steady state
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;
  virtual Kernels& kernels() = 0;

  // Throws Error(ERR_OUT_OF_MEMORY).
  virtual std::shared_ptr<Buffer> allocate(size_t bytes) = 0;
  virtual MemoryUse memory() const = 0;
  virtual void reset_peak() = 0;
  virtual void empty_cache() = 0;

  // Queues work; waits while the queue is full. Returns the ticket that the work will be called with.
  virtual uint64_t submit(std::function<void(uint64_t ticket)> work) = 0;
  // Waits until everything submitted so far has run.
  virtual void synchronize() = 0;

  // The oldest failure that nobody has been told of, for work that has run; to be called on the stream.
  std::shared_ptr<Failure> take_unobserved();
  void record(std::shared_ptr<Failure> failure) {
    if (unobserved_ == nullptr || unobserved_->observed) unobserved_ = std::move(failure);
  }

 protected:
  friend class Buffer;
  virtual void release(void* data, size_t bytes, size_t capacity) = 0;

 private:
  std::shared_ptr<Failure> unobserved_;
};

// The memory that a piece of work touches, for passing failures on: an op whose input failed does not run, its outputs
// fail likewise and what it would have updated in place keeps its value.
struct Access {
  std::vector<std::shared_ptr<Status>> in, out, in_out;
};

// Queues `work`; its ticket names the call in a Failure. `work` reports trouble by throwing Error. `done` (optional) is
// called on the stream afterwards with the failure or null.
uint64_t submit_op(Device& device, const char* op, Access access, std::function<void(Kernels&)> work,
                   std::function<void(const std::shared_ptr<Failure>&)> done = nullptr);

Device& cpu_device();

// What the CPU device found: instruction set in use, those that this binary has and this CPU can run, worker threads.
struct CpuInfo {
  std::string isa;
  std::vector<std::string> available;
};
CpuInfo cpu_info();

}  // namespace llmeff
