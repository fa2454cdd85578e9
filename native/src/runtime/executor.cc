#include "runtime/executor.h"

#include <algorithm>
#include <system_error>

#include "runtime/usable_cores.h"
#include "runtime/wait.h"
#include "llmeff/error.h"

namespace llmeff {

// The gaps in which a program prepares its next calls are shorter; waking a thread costs about as much. With one core
// there is nobody to wait awake for.
Executor::Executor(size_t capacity, uint64_t first)
    : capacity_(capacity),
      patience_(usable_cores() > 1 ? 50 : 0),
      last_(new Chunk),
      end_(last_->bytes),
      known_completed_(first),
      submitted_(first),
      completed_(first) {
  try {
    thread_ = std::thread([this, chunk = last_, first] { loop(chunk, first); });
  } catch (const std::system_error& error) {
    fail("ERR_OUT_OF_MEMORY",
         "[cpu] the system refuses the engine a thread (%s). Raise the limits of processes and of virtual memory "
         "(ulimit -u, ulimit -v), or end other programs.",
         error.what());
  }
}

void* Executor::reserve(size_t bytes) {
  submit_mutex_.lock();
  try {
    const uint64_t submitted = submitted_.load(std::memory_order_relaxed);
    if (submitted - known_completed_ >= capacity_) {
      known_completed_ = completed_.load(std::memory_order_acquire);
      // Room for several pieces at once, so that the two threads don't wake each other for every one.
      if (submitted - known_completed_ >= capacity_)
        wait_for(submitted - capacity_ + std::min<uint64_t>(16, capacity_));
    }
    const size_t needed = sizeof(Header) + (bytes + alignof(Header) - 1) / alignof(Header) * alignof(Header);
    if (end_ + needed + sizeof(Header) > last_->bytes + Chunk::kBytes) {
      Chunk* const chunk = take_chunk();
      last_->next = chunk;
      new (end_) Header{0};
      last_ = chunk;
      end_ = chunk->bytes;
    }
    new (end_) Header{needed};
    void* const room = end_ + sizeof(Header);
    end_ += needed;
    return room;
  } catch (...) {
    submit_mutex_.unlock();
    throw;
  }
}

uint64_t Executor::publish() noexcept {
  const uint64_t ticket = submitted_.load(std::memory_order_relaxed) + 1;
  submitted_.store(ticket);
  submit_mutex_.unlock();
  if (asleep_.load()) {
    std::lock_guard lock(sleep_mutex_);
    not_empty_.notify_one();
  }
  return ticket;
}

void Executor::drain() {
  wait_for(submitted_.load());
}

void Executor::wait_for(uint64_t ticket) {
  if (spin_until(patience_, [&] { return completed_.load(std::memory_order_acquire) >= ticket; })) return;
  std::unique_lock lock(sleep_mutex_);
  for (;;) {
    awaited_.store(std::min(awaited_.load(), ticket));
    if (completed_.load() >= ticket) return;
    progress_.wait(lock);
  }
}

void Executor::wait_for_work(uint64_t done) {
  if (spin_until(patience_, [&] { return submitted_.load(std::memory_order_acquire) != done; })) return;
  std::unique_lock lock(sleep_mutex_);
  asleep_.store(true);
  not_empty_.wait(lock, [&] { return submitted_.load() != done; });
  asleep_.store(false);
}

void Executor::loop(Chunk* chunk, uint64_t done) {
  char* at = chunk->bytes;
  for (;;) {
    wait_for_work(done);
    for (const uint64_t submitted = submitted_.load(std::memory_order_acquire); done != submitted;) {
      size_t bytes = reinterpret_cast<Header*>(at)->bytes;
      if (bytes == 0) {
        Chunk* const next = chunk->next;
        recycle(chunk);
        chunk = next;
        at = chunk->bytes;
        bytes = reinterpret_cast<Header*>(at)->bytes;
      }
      Work* const work = reinterpret_cast<Work*>(at + sizeof(Header));
      work->run(work, ++done);
      at += bytes;
      // What the work held is released before anybody is told that it has run.
      completed_.store(done);
      if (done >= awaited_.load()) {
        std::lock_guard lock(sleep_mutex_);
        awaited_.store(kNobody);
        progress_.notify_all();
      }
    }
  }
}

Executor::Chunk* Executor::take_chunk() {
  {
    std::lock_guard lock(chunks_mutex_);
    if (spare_ != nullptr) {
      Chunk* const chunk = spare_;
      spare_ = chunk->next;
      return chunk;
    }
  }
  return new Chunk;
}

void Executor::recycle(Chunk* chunk) {
  std::lock_guard lock(chunks_mutex_);
  chunk->next = spare_;
  spare_ = chunk;
}

}  // namespace llmeff
