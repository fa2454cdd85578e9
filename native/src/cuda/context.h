// What a CUDA kernel's launcher works with: the stream, the facts of the GPU, memory for the length of one call, and
// how a check of values fails. One for each GPU, used by the thread that launches (cuda_device.cc) alone.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "llmeff/device.h"

namespace llmeff::cuda {

// Handed to a kernel that checks values, such as ids. After a bad one it goes on with a zero in its place.
struct ValueCheck {
  // The first bad one: its position in the upper half, the value in the lower; else all ones.
  unsigned long long* found;

#ifdef __CUDACC__
  __device__ void bad(int64_t position, int32_t value) const {
    atomicMin(found, static_cast<unsigned long long>(position) << 32 | static_cast<uint32_t>(value));
  }
#endif
};

// Handed to a kernel that updates in place: it leaves everything as it is when closed().
struct Guard {
  static constexpr int kMost = 8;
  const unsigned long long* checks[kMost];
  int count;

#ifdef __CUDACC__
  __device__ bool closed() const {
    bool failed = false;
    for (int i = 0; i < count; ++i) failed |= *checks[i] != ~0ull;
    return failed;
  }
#endif
};

struct Facts {
  int index = 0;
  int multiprocessors = 0;
  int capability = 0;               // 10 · major + minor: 80, 90, 100
  size_t shared_bytes_per_block = 0;  // with the opt-in
};

// Of the GPU with that number.
Facts facts_of(int index);

class CublasLt;
class Cusolver;

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

  // For a kernel of this call, once: message(position, value) tells the user what was wrong.
  using Message = std::function<std::string(int64_t position, int32_t value)>;
  ValueCheck check_values(Message message, const char* code = "ERR_INDEX");
  // The checks that this call's updates in place depend on, the one above included.
  Guard guard();

  // Matrix products, opened at the first use; null where the library is not to be had.
  CublasLt* find_cublas_lt();
  // Factorizations, likewise.
  Cusolver* find_cusolver();

  // For the device: what memory is held by and what helps, for the message of a call that finds none.
  std::function<std::string()> memory_state;

  // For the device, around the kernels of a call. end() returns the call's check, null if it made none, whose result is
  // to be had by settle() once the stream has come so far; any thread may settle.
  void begin(const char* op, uint64_t ticket, const std::vector<FailurePointer>& pending);
  FailurePointer end();
  void settle(Failure& check);

 private:
  struct Check;
  int take_slot();

  std::vector<void*> chunks_;  // of the arena; the last is the one in use
  size_t capacity_ = 0, used_ = 0;
  // Results of checks on the GPU and, copied after them, on the host.
  unsigned long long *found_ = nullptr, *found_on_host_ = nullptr;
  std::mutex slots_mutex_;
  std::vector<int> free_slots_;
  std::vector<FailurePointer> pending_;
  std::shared_ptr<Check> check_;
  const char* op_ = "";
  uint64_t ticket_ = 0;
  CublasLt* cublas_lt_ = nullptr;
  Cusolver* cusolver_ = nullptr;
};

}  // namespace llmeff::cuda
