// A bounded in-order queue of work on one native thread: the CPU's stream.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace llmeff::cpu {

class Executor {
 public:
  // Throws Error when the system gives it no thread.
  explicit Executor(size_t capacity);

  // Waits while `capacity` pieces of work are queued. Tickets count from 1.
  uint64_t submit(std::function<void(uint64_t)> work);
  // Waits until everything submitted before this call has run.
  void drain();

 private:
  void loop();

  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable not_empty_, progress_;
  std::deque<std::function<void(uint64_t)>> queue_;
  uint64_t submitted_ = 0, completed_ = 0;
  std::thread thread_;
};

}  // namespace llmeff::cpu
