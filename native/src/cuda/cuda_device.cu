// A GPU as a device. Work is queued as on the CPU; one thread takes it from the queue and launches it on one stream, so
// that neither the caller nor the launching thread waits for the GPU. Another thread waits for what is read.
#include <cuda_runtime.h>

#include <future>
#include <map>
#include <mutex>
#include <utility>

#include "cuda/check.h"
#include "cuda/completions.h"
#include "cuda/context.h"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/pinned.h"
#include "llmeff/call.h"
#include "llmeff/cuda.h"
#include "llmeff/error.h"
#include "runtime/allocator.h"
#include "runtime/executor.h"

namespace llmeff::cuda {
namespace {

constexpr size_t kQueueCapacity = 8192;
constexpr int kOldestDriver = CUDART_VERSION / 1000 * 1000;  // minor versions are compatible

int device_count() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    fail("ERR_DEVICE", "[cuda] there is no NVIDIA driver on this machine. Install one, or use device \"cpu\".");
  if (driver < kOldestDriver)
    fail("ERR_DEVICE", "[cuda] the NVIDIA driver knows CUDA %d.%d; CUDA %d.0 or newer is needed. Update the driver.",
         driver / 1000, driver % 1000 / 10, kOldestDriver / 1000);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0)
    fail("ERR_DEVICE", "[cuda] no GPU can be used: %s. Is CUDA_VISIBLE_DEVICES set to nothing?",
         status == cudaSuccess ? "the driver shows none" : cudaGetErrorString(status));
  return count;
}

std::vector<CudaDeviceInfo> devices() {
  const int count = device_count();
  int driver = 0;
  cudaDriverGetVersion(&driver);
  std::vector<CudaDeviceInfo> all;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    LLMEFF_CUDA(cudaGetDeviceProperties(&properties, i));
    all.push_back({properties.name, properties.totalGlobalMem,
                   formatted("%d.%d", properties.major, properties.minor), driver});
  }
  return all;
}

// Makes the GPU current for the calling thread, which may be any thread of JavaScript.
int made_current(int index) {
  LLMEFF_CUDA(cudaSetDevice(index));
  return index;
}

cudaStream_t new_stream() {
  cudaStream_t stream;
  LLMEFF_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

class GpuMemory final : public SystemMemory {
 public:
  explicit GpuMemory(int index) : index_(index) {
    size_t free = 0;
    LLMEFF_CUDA(cudaMemGetInfo(&free, &total_));
  }

  void* take(size_t bytes) override {
    made_current(index_);
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    LLMEFF_CUDA(status);
    return data;
  }
  void give(void* data, size_t) override {
    made_current(index_);
    cudaFree(data);
  }
  size_t limit() const override { return total_; }

 private:
  const int index_;
  size_t total_ = 0;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index)
      : index_(made_current(index)),
        context_(facts_of(index), new_stream()),
        kernels_(context_),
        memory_(index),
        allocator_(this, memory_),
        executor_(kQueueCapacity, (static_cast<uint64_t>(index) + 1) << 40),  // tickets of no two devices are equal
        completions_(index, context_.stream) {
    context_.memory_state = [this] { return memory_state(); };
    submit([index](uint64_t) { cudaSetDevice(index); });
  }

  std::string name() const override { return formatted("cuda:%d", index_); }
  Kernels& kernels() override { return kernels_; }
  bool takes_half() const override { return true; }

  Buffer allocate(size_t bytes) override {
    Block* block = allocator_.allocate(bytes);
    if (block == nullptr) {
      empty_cache();
      block = allocator_.allocate(bytes);
    }
    if (block == nullptr)
      fail("ERR_OUT_OF_MEMORY", "[%s] out of memory: %zu bytes were asked for while %s", name().c_str(), bytes,
           memory_state().c_str());
    Buffer buffer(block);
    if (allocator_.missed())
      if (auto surplus = allocator_.detach_surplus(); !surplus.empty())
        submit([this, surplus = std::move(surplus)](uint64_t) {
          cudaStreamSynchronize(context_.stream);
          allocator_.free(surplus);
        });
    return buffer;
  }
  MemoryUse memory() const override { return allocator_.use(); }
  void reset_peak() override { allocator_.reset_peak(); }
  void empty_cache() override {
    std::lock_guard lock(emptying_);
    const auto blocks = allocator_.detach_all();
    synchronize();
    allocator_.free(blocks);
  }

  void synchronize() override {
    std::promise<void> finished;
    submit([this, &finished](uint64_t ticket) {
      finish(ticket, [&finished](const FailurePointer&) { finished.set_value(); });
    });
    finished.get_future().wait();
  }

  std::shared_ptr<void> staging(size_t bytes) override {
    made_current(index_);
    return pinned_.take(bytes);
  }

  void clock(uint64_t, std::function<void(double)> done) override {
    if (origin_ == nullptr) origin_ = recorded();
    const cudaEvent_t now = recorded();
    completions_.add([now, origin = origin_, done](cudaError_t) {
      float milliseconds = 0;
      cudaEventElapsedTime(&milliseconds, origin, now);
      cudaEventDestroy(now);
      done(milliseconds);
    });
  }

  void begin(const char* op, uint64_t ticket, const std::vector<FailurePointer>& pending) override {
    context_.begin(op, ticket, pending);
    if (measuring_) measured_.push_back({op, recorded(), nullptr});
  }
  FailurePointer end(uint64_t) override {
    if (measuring_) measured_.back().end = recorded();
    const FailurePointer check = context_.end();
    if (check == nullptr) return nullptr;
    completions_.add([this, check](cudaError_t) {
      context_.settle(*check);
      if (check->state == Failure::State::kFailed && (unobserved_ == nullptr || unobserved_->observed))
        unobserved_ = check;
    });
    return check;
  }
  void finish(uint64_t ticket, std::function<void(const FailurePointer&)> done) override {
    try {
      completions_.add([this, ticket, done](cudaError_t status) {
        done(status == cudaSuccess ? nullptr : lost(status, ticket));
      });
    } catch (...) {
      done(current_failure("finish", ticket));
    }
  }
  std::vector<OpTime> measure_ops(bool on) override {
    measuring_ = on;
    LLMEFF_CUDA(cudaStreamSynchronize(context_.stream));
    std::map<std::string, OpTime> times;
    for (const Measured& call : std::exchange(measured_, {})) {
      float milliseconds = 0;
      if (call.end != nullptr) cudaEventElapsedTime(&milliseconds, call.start, call.end);
      OpTime& time = times.try_emplace(call.op, OpTime{call.op, 0, 0}).first->second;
      ++time.calls;
      time.milliseconds += milliseconds;
      cudaEventDestroy(call.start);
      if (call.end != nullptr) cudaEventDestroy(call.end);
    }
    std::vector<OpTime> all;
    for (const auto& [op, time] : times) all.push_back(time);
    return all;
  }
  FailurePointer take_unobserved_check() override {
    const FailurePointer check = std::exchange(unobserved_, nullptr);
    return check != nullptr && !check->observed ? check : nullptr;
  }

 protected:
  void* reserve(size_t bytes) override { return executor_.reserve(bytes); }
  uint64_t publish() noexcept override { return executor_.publish(); }
  void release(Block* block) override { allocator_.release(block); }

 private:
  // An event that is recorded now.
  cudaEvent_t recorded() {
    cudaEvent_t event;
    LLMEFF_CUDA(cudaEventCreate(&event));
    LLMEFF_CUDA(cudaEventRecord(event, context_.stream));
    return event;
  }

  struct Measured {
    const char* op;
    cudaEvent_t start, end;
  };

  std::string memory_state() const {
    made_current(index_);
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    const MemoryUse use = allocator_.use();
    return formatted("tensors hold %zu, %zu are kept for reuse and %zu of %zu are free. Dispose tensors, use scope(), "
                     "emptyCache(), or a smaller batch.",
                     use.live_bytes, use.cached_bytes, free, total);
  }

  FailurePointer lost(cudaError_t status, uint64_t ticket) {
    auto failure = std::make_shared<Failure>();
    failure->code = "ERR_CUDA";
    failure->op = "finish";
    failure->ticket = ticket;
    failure->message = formatted(
        "[cuda:%d] the GPU stopped: %s. Its memory is lost: restart the process and resume from a checkpoint.", index_,
        cudaGetErrorString(status));
    return failure;
  }

  const int index_;
  Context context_;
  CudaKernels kernels_;
  GpuMemory memory_;
  CachingAllocator allocator_;
  std::mutex emptying_;
  PinnedMemory pinned_;
  Executor executor_;
  bool measuring_ = false;
  std::vector<Measured> measured_;
  cudaEvent_t origin_ = nullptr;  // of the clock
  FailurePointer unobserved_;  // of the completions' thread
  Completions completions_;
};

Device& device(int index) {
  const int count = device_count();
  if (index < 0 || index >= count)
    fail("ERR_DEVICE", "[cuda] there is no cuda:%d; this machine has %d GPU%s, counted from 0.", index, count,
         count == 1 ? "" : "s");
  // Never destroyed: tensors of other threads may outlive any moment at which it could be.
  return *new CudaDevice(index);
}

constexpr CudaLibrary kLibrary = {CudaLibrary::kVersion, &devices, &device};

}  // namespace
}  // namespace llmeff::cuda

extern "C" __attribute__((visibility("default"))) const llmeff::CudaLibrary* llmeff_cuda_library() {
  return &llmeff::cuda::kLibrary;
}
