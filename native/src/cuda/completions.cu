#include "cuda/completions.h"

#include <chrono>
#include <utility>

#include "cuda/check.h"
#include "runtime/wait.h"

namespace llmeff::cuda {
namespace {

// The wait of most reads in a loop that decodes tokens; waking a sleeping thread takes about as long.
constexpr std::chrono::microseconds kPatience{50};

}  // namespace

Completions::Completions(int device, cudaStream_t stream)
    : stream_(stream), thread_([this, device] { loop(device); }) {}

cudaEvent_t Completions::take_event() {
  {
    std::lock_guard lock(mutex_);
    if (!free_events_.empty()) {
      const cudaEvent_t event = free_events_.back();
      free_events_.pop_back();
      return event;
    }
  }
  cudaEvent_t event;
  LLMEFF_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
  return event;
}

void Completions::add(Done done) {
  const cudaEvent_t event = take_event();
  LLMEFF_CUDA(cudaEventRecord(event, stream_));
  {
    std::lock_guard lock(mutex_);
    waiting_.push_back({event, std::move(done)});
  }
  added_.notify_one();
}

void Completions::loop(int device) {
  cudaSetDevice(device);
  for (;;) {
    Completion next;
    {
      std::unique_lock lock(mutex_);
      added_.wait(lock, [&] { return !waiting_.empty(); });
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    spin_until(kPatience, [&] { return cudaEventQuery(next.event) != cudaErrorNotReady; });
    const cudaError_t status = cudaEventSynchronize(next.event);
    next.done(status);
    std::lock_guard lock(mutex_);
    free_events_.push_back(next.event);
  }
}

}  // namespace llmeff::cuda
