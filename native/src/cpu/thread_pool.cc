// The thread pool behind run_tasks. Its threads wait awake for a moment after work, then sleep: spinning barriers
// collapse when another process wants a core.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/usable_cores.h"
#include "runtime/wait.h"
#include "llmeff/error.h"
#include "llmeff/parallel.h"

namespace llmeff {
namespace {

int configured_threads() {
  if (const char* text = std::getenv("LLMEFF_NUM_THREADS")) {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (end != text && *end == '\0' && n >= 1 && n <= 1024) return static_cast<int>(n);
  }
  return usable_cores();
}

struct AlignedBlock {
  void* data = nullptr;
  size_t bytes = 0;

  AlignedBlock() = default;
  AlignedBlock(const AlignedBlock&) = delete;
  AlignedBlock& operator=(const AlignedBlock&) = delete;
  void* at_least(size_t wanted) {
    if (wanted <= bytes) return data;
    const size_t grown = (wanted + wanted / 4 + 63) / 64 * 64;
    ::operator delete (data, std::align_val_t{64});
    data = nullptr;
    bytes = 0;
    data = ::operator new (grown, std::align_val_t{64}, std::nothrow);
    if (data == nullptr)
      fail("ERR_OUT_OF_MEMORY", "out of memory: a kernel's scratch space of %zu bytes could not be had", grown);
    bytes = grown;
    return data;
  }
  ~AlignedBlock() { ::operator delete (data, std::align_val_t{64}); }
};

// One job at a time: `state_` holds its number and how many of its units (runs of consecutive tasks) nobody has taken.
// Taking a unit is one compare-and-swap, which fails if the job is another by then: a thread that comes late finds
// nothing to take, touches nothing, and need not be waited for. The caller waits for units that were taken, never for
// threads that were not, so a helper that another program keeps from its core holds up at most the unit that it is at.
class Pool {
 public:
  // With fewer threads where the system gives no more: a limit of processes or of memory is no reason to fail.
  explicit Pool(int threads)
      : most_awake_(std::min(threads, usable_cores()) - 1), patience_(most_awake_ > 0 ? 20 : 0) {
    threads_.reserve(static_cast<size_t>(threads));
    try {
      for (int worker = 1; worker < threads; ++worker) threads_.emplace_back([this, worker] { loop(worker); });
    } catch (const std::exception&) {  // system_error or bad_alloc
    }
    scratch_ = std::vector<AlignedBlock>(threads_.size() + 1);
  }

  int size() const { return static_cast<int>(scratch_.size()); }
  AlignedBlock& scratch(int worker) { return scratch_[worker]; }
  AlignedBlock& shared() { return shared_; }

  void run(int64_t count, void (*task)(void*, int64_t, int), void* context) {
    if (count <= 0) return;
    if (count == 1 || threads_.empty()) {
      for (int64_t i = 0; i < count; ++i) task(context, i, 0);
      return;
    }
    // Tasks of a long job are taken several at a time.
    const int64_t unit = std::max<int64_t>(1, count / (int64_t{size()} * kUnitsPerThread));
    const int64_t units = (count + unit - 1) / unit;
    set(count_, count);
    set(unit_, unit);
    set(units_, units);
    set(task_, task);
    set(context_, context);
    done_.store(0, std::memory_order_relaxed);
    number_ = (number_ + 1) % (uint64_t{1} << (64 - kUnitBits));
    state_.store(number_ << kUnitBits | static_cast<uint64_t>(units));
    wake_helper();
    work(0);
    const auto finished = [&] { return done_.load(std::memory_order_acquire) == units; };
    if (!spin_until(patience_, finished)) {
      std::unique_lock lock(mutex_);
      caller_asleep_.store(true);
      finished_.wait(lock, [&] { return done_.load() == units; });
      caller_asleep_.store(false);
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  static constexpr int kUnitBits = 20, kUnitsPerThread = 64;
  static_assert(1024 * kUnitsPerThread * 2 < 1 << kUnitBits);
  static constexpr uint64_t kUnitMask = (uint64_t{1} << kUnitBits) - 1;

  template <class T>
  static void set(std::atomic<T>& field, T value) {
    field.store(value, std::memory_order_relaxed);
  }
  template <class T>
  static T get(const std::atomic<T>& field) {
    return field.load(std::memory_order_relaxed);
  }
  bool units_left() const { return (state_.load() & kUnitMask) != 0; }

  // Takes units of the present job and runs their tasks until none is left.
  void work(int worker) {
    int64_t ran = 0;
    for (uint64_t state = state_.load(std::memory_order_acquire); (state & kUnitMask) != 0;) {
      const int64_t count = get(count_), unit = get(unit_), first = (get(units_) - (state & kUnitMask)) * unit;
      const auto task = get(task_);
      void* const context = get(context_);
      if (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      if (worker > 0 && ran == 0 && (state & kUnitMask) > 1) wake_helper();
      try {
        for (int64_t i = first; i < std::min(first + unit, count); ++i) task(context, i, worker);
      } catch (...) {
        ran += abandon();
      }
      ++ran;
      state = state_.load(std::memory_order_acquire);
    }
    if (ran > 0) finish(ran);
  }

  // After a task threw: keeps the first exception and takes all units that are left.
  int64_t abandon() {
    std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
    return static_cast<int64_t>(state_.fetch_and(~kUnitMask) & kUnitMask);
  }

  void finish(int64_t units) {
    const int64_t all = get(units_);  // the job can't end before this thread has counted
    if (done_.fetch_add(units) + units == all && caller_asleep_.load()) {
      std::lock_guard lock(mutex_);
      finished_.notify_one();
    }
  }

  // One at a time: whoever wakes and finds work wakes the next, so that a job has no more threads than it has use for
  // and its caller gives few of them a thought.
  void wake_helper() {
    if (asleep_.load() == 0) return;
    std::lock_guard lock(mutex_);
    wake_.notify_one();
  }

  void loop(int worker) {
    for (;;) {
      work(worker);
      // No more helpers than cores stay awake between jobs.
      const bool may_wait_awake = awake_.fetch_add(1) < most_awake_;
      const bool more = may_wait_awake && spin_until(patience_, [this] { return units_left(); });
      awake_.fetch_sub(1);
      if (more) continue;
      std::unique_lock lock(mutex_);
      asleep_.fetch_add(1);
      wake_.wait(lock, [this] { return units_left(); });
      asleep_.fetch_sub(1);
    }
  }

  // Written by the caller before `state_`; a helper's reads count if it then takes a unit.
  std::atomic<int64_t> count_{0}, unit_{1}, units_{0};
  std::atomic<void (*)(void*, int64_t, int)> task_{nullptr};
  std::atomic<void*> context_{nullptr};
  uint64_t number_ = 0;

  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int64_t> done_{0};  // units
  std::atomic<bool> caller_asleep_{false};
  alignas(64) std::atomic<int> asleep_{0}, awake_{0};  // helpers between jobs
  const int most_awake_;
  const std::chrono::microseconds patience_;  // about the gap between two kernels of a step

  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::exception_ptr error_;  // guarded by mutex_ until the job has ended
  std::vector<AlignedBlock> scratch_;
  AlignedBlock shared_;
  std::vector<std::thread> threads_;
};

// Never destroyed: its threads may be asleep in it while the process exits.
Pool& pool() {
  static Pool* const instance = new Pool(configured_threads());
  return *instance;
}

}  // namespace

int num_threads() {
  return pool().size();
}
void run_tasks(int64_t count, void (*task)(void*, int64_t, int), void* context) {
  pool().run(count, task, context);
}
void* worker_scratch_bytes(int worker, size_t bytes) {
  return pool().scratch(worker).at_least(bytes);
}
void* shared_scratch_bytes(size_t bytes) {
  return pool().shared().at_least(bytes);
}

}  // namespace llmeff
