#include "cpu/executor.h"

#include <system_error>

#include "llmeff/error.h"

namespace llmeff::cpu {

Executor::Executor(size_t capacity) : capacity_(capacity) {
  try {
    thread_ = std::thread([this] { loop(); });
  } catch (const std::system_error& error) {
    fail("ERR_OUT_OF_MEMORY",
         "[cpu] the system refuses the engine a thread (%s). Raise the limits of processes and of virtual memory "
         "(ulimit -u, ulimit -v), or end other programs.",
         error.what());
  }
}

uint64_t Executor::submit(std::function<void(uint64_t)> work) {
  uint64_t ticket;
  {
    std::unique_lock lock(mutex_);
    progress_.wait(lock, [&] { return queue_.size() < capacity_; });
    queue_.push_back(std::move(work));
    ticket = ++submitted_;
  }
  not_empty_.notify_one();
  return ticket;
}

void Executor::drain() {
  std::unique_lock lock(mutex_);
  const uint64_t target = submitted_;
  progress_.wait(lock, [&] { return completed_ >= target; });
}

void Executor::loop() {
  for (;;) {
    std::function<void(uint64_t)> work;
    uint64_t ticket;
    {
      std::unique_lock lock(mutex_);
      not_empty_.wait(lock, [&] { return !queue_.empty(); });
      work = std::move(queue_.front());
      queue_.pop_front();
      ticket = completed_ + 1;
    }
    work(ticket);
    work = nullptr;  // what it held is released before anybody is told that it has run
    {
      std::lock_guard lock(mutex_);
      completed_ = ticket;
    }
    progress_.notify_all();
  }
}

}  // namespace llmeff::cpu
