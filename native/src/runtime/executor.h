// A bounded in-order queue of work on one native thread: the CPU's stream.
//
// Pieces of work lie one behind the other in chunks of memory. Those who submit take turns at the end of the queue; the
// thread runs from its front and meets them only in two counters. Either side is woken only when it sleeps.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>

#include "llmeff/device.h"

namespace llmeff {

class Executor {
 public:
  // Throws Error when the system gives it no thread. Tickets count from first + 1.
  explicit Executor(size_t capacity, uint64_t first = 0);

  // Waits while `capacity` pieces of work are queued, then gives room for one more. Others who submit wait from here to
  // publish(), which must follow.
  void* reserve(size_t bytes);
  uint64_t publish() noexcept;
  // Waits until everything submitted before this call has run.
  void drain();

 private:
  // What lies before each piece of work.
  struct alignas(16) Header {
    size_t bytes;  // to the next header; 0: the queue goes on in the next chunk
  };
  struct Chunk {
    static constexpr size_t kBytes = size_t{64} << 10;
    Chunk* next = nullptr;
    alignas(64) char bytes[kBytes];
  };
  static_assert(Chunk::kBytes >= Device::kLargestWork + 2 * sizeof(Header));

  Chunk* take_chunk();
  void recycle(Chunk* chunk);
  void wait_for(uint64_t ticket);
  void wait_for_work(uint64_t done);
  void loop(Chunk* chunk, uint64_t done);

  const uint64_t capacity_;
  const std::chrono::microseconds patience_;  // how long a thread waits awake

  std::mutex submit_mutex_;  // guards the end of the queue
  Chunk* last_;
  char* end_;
  uint64_t known_completed_;

  std::mutex chunks_mutex_;
  Chunk* spare_ = nullptr;

  std::mutex sleep_mutex_;
  std::condition_variable not_empty_, progress_;
  alignas(64) std::atomic<uint64_t> submitted_;
  std::atomic<bool> asleep_{false};  // the queue's thread
  alignas(64) std::atomic<uint64_t> completed_;
  std::atomic<uint64_t> awaited_{kNobody};  // the first ticket that somebody sleeps for
  static constexpr uint64_t kNobody = ~uint64_t{0};
  std::thread thread_;
};

}  // namespace llmeff
