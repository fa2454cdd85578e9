// What is to be done when the stream has come to a point: one thread waits for events in their order.
#pragma once

#include <cuda_runtime.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace llmeff::cuda {

class Completions {
 public:
  using Done = std::function<void(cudaError_t status)>;

  Completions(int device, cudaStream_t stream);

  // done(status) on the waiting thread once all that the stream has now is computed. From the launching thread.
  void add(Done done);

 private:
  struct Completion {
    cudaEvent_t event;
    Done done;
  };

  cudaEvent_t take_event();
  void loop(int device);

  const cudaStream_t stream_;
  std::mutex mutex_;
  std::condition_variable added_;
  std::deque<Completion> waiting_;
  std::vector<cudaEvent_t> free_events_;
  std::thread thread_;
};

}  // namespace llmeff::cuda
