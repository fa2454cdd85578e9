// What a CUDA kernel's launcher works with: the stream, the facts of the GPU, memory for the length of one call, and
// how a check of values fails. One for each GPU, used by the thread that launches (cuda_device.cc) alone.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace llmeff::cuda {

// What a kernel may find wrong with the values it was given; context.cc has the words.
enum class BadValue : int { kNone, kId, kIndex, kTarget };

// The first bad value since the last report. It lies in pinned host memory, which kernels write over the bus.
struct BadValueReport {
  unsigned long long claimed;  // 0: nothing was wrong
  unsigned long long ticket;   // of the call
  BadValue what;
  long long value, bound;  // value is outside [0, bound)
};

// Handed to a kernel that checks values. After a bad value the work goes on with zeros in its place; updates in place
// stop until the failure was told.
struct ValueCheck {
  BadValueReport* report;
  int* failed;  // in device memory, for kernels that update in place
  unsigned long long ticket;
  BadValue what;

#ifdef __CUDACC__
  __device__ void bad(long long value, long long bound) const {
    if (atomicExch(failed, 1) != 0) return;
    report->ticket = ticket;
    report->what = what;
    report->value = value;
    report->bound = bound;
    __threadfence_system();
    *static_cast<volatile unsigned long long*>(&report->claimed) = 1;
  }
#endif
};

struct Facts {
  int index = 0;
  int multiprocessors = 0;
  int capability = 0;               // 10 · major + minor: 80, 90, 100
  size_t shared_bytes_per_block = 0;  // with the opt-in
  size_t l2_bytes = 0;
};

// What was wrong, for the user.
std::string message_of(const BadValueReport& report);

class CublasLt;

class Context {
 public:
  Context(const Facts& facts, cudaStream_t stream);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  const Facts facts;
  const cudaStream_t stream;

  // Uninitialised device memory until the call ends, 256-byte aligned. Kernels of one stream run in order, so the next
  // call may have the same memory.
  void* scratch_bytes(size_t bytes);
  template <class T>
  T* scratch(int64_t count) {
    return static_cast<T*>(scratch_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

  ValueCheck value_check(BadValue what);
  // Non-zero while a failure has not been told: kernels that update in place do nothing then.
  const int* failed() const { return failed_; }

  // Matrix products, opened at the first use; null where the library is not to be had.
  CublasLt* find_cublas_lt();

  // For the device: a call begins; what checks found since the last report (claimed 0: nothing), and its name.
  void begin(const char* op, uint64_t ticket);
  const BadValueReport& report() const { return *report_; }
  const char* op_of(uint64_t ticket) const;
  void clear_report();

 private:
  struct Checked {
    uint64_t ticket;
    const char* op;
  };

  std::vector<void*> chunks_;  // of the arena; the last is the one in use
  size_t capacity_ = 0, used_ = 0;
  BadValueReport* report_ = nullptr;
  int* failed_ = nullptr;
  const char* op_ = "";
  uint64_t ticket_ = 0;
  std::vector<Checked> checked_;  // the last calls that check values, a ring
  size_t next_checked_ = 0;
  CublasLt* cublas_lt_ = nullptr;
};

}  // namespace llmeff::cuda
