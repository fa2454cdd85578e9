// The thread pool behind run_tasks: threads spin for a moment after work, then sleep, so that neither an idle engine
// nor a busy neighbour costs anything (spinning barriers collapse when another process wants a core).
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "cpu/usable_cores.h"
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
  return cpu::usable_cores();
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

class Pool {
 public:
  // With fewer threads where the system gives no more: a limit of processes or of memory is no reason to fail.
  explicit Pool(int threads) {
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
    Job job(count, task, context);
    {
      std::lock_guard lock(mutex_);
      job_ = &job;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work(job, 0);
    // No thread may join after this; then wait for those that did.
    {
      std::unique_lock lock(mutex_);
      job_ = nullptr;
      done_.wait(lock, [&] { return job.helpers == 0; });
    }
    if (job.error) std::rethrow_exception(job.error);
  }

 private:
  struct Job {
    Job(int64_t count, void (*task)(void*, int64_t, int), void* context) : count(count), task(task), context(context) {}

    const int64_t count;
    void (*const task)(void*, int64_t, int);
    void* const context;
    std::atomic<int64_t> next{0};
    int helpers = 0;  // guarded by mutex_
    std::exception_ptr error;
    std::mutex error_mutex;
  };

  static void work(Job& job, int worker) {
    for (;;) {
      const int64_t i = job.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= job.count) return;
      try {
        job.task(job.context, i, worker);
      } catch (...) {
        std::lock_guard lock(job.error_mutex);
        if (!job.error) job.error = std::current_exception();
        job.next.store(job.count, std::memory_order_relaxed);
      }
    }
  }

  void loop(int worker) {
    constexpr int kSpins = 2000;  // some microseconds: the gap between two kernels of one step
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
      }
      Job* job = nullptr;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        job = job_;
        if (job != nullptr) ++job->helpers;
      }
      if (job == nullptr) continue;  // that kernel ended before this thread woke
      work(*job, worker);
      {
        std::lock_guard lock(mutex_);
        --job->helpers;
      }
      done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<uint64_t> generation_{0};
  Job* job_ = nullptr;
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
