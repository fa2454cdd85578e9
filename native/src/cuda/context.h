// What a CUDA kernel's launcher works with: the stream, the facts of the GPU, memory for the length of one call, and
// how a check of values fails. One for each GPU, used by the thread that launches (cuda_device.cc) alone.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
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
  int capability = 0;                 // 10 · major + minor: 80, 90, 100
  size_t shared_bytes_per_block = 0;  // with the opt-in
};

// Of the GPU with that number.
Facts facts_of(int index);

class CublasLt;
class Cusolver;

// Memory of the GPU for as long as somebody holds it.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes);  // throws Error
  DeviceMemory(void* data, size_t bytes);
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory();

  void* const data;
  const size_t bytes;
};

// What the checks of values of the calls in a graph find: a slot each, which every launch begins with all ones.
struct GraphChecks {
  // Checks that were joined to one.
  struct Joint {
    std::vector<const unsigned long long*> checks;
    const unsigned long long* all = nullptr;
  };

  explicit GraphChecks(int slots) : slots(slots), memory(static_cast<size_t>(slots + 1) * sizeof(unsigned long long)) {}

  unsigned long long* found() const { return static_cast<unsigned long long*>(memory.data); }
  // All ones unless earlier launches have failed to make what this one goes on with.
  unsigned long long* outside() const { return found() + slots; }

  const int slots;
  const DeviceMemory memory;
  int used = 0;
  std::vector<FailurePointer> checks;  // that were made, in the order of their slots
  Joint joint;                         // the last one
};

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

  // For kernels whose blocks take their work from a number that goes up: 0 at the beginning, and again at the end.
  int* work_counter() const { return reinterpret_cast<int*>(found_ + kSlots + 1); }

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

  // While calls are captured into a graph their checks and guards work with its slots; null: no longer.
  void capture(GraphChecks* graph);
  bool capturing() const { return graph_ != nullptr; }
  // The call's, as begin() was told.
  const std::vector<FailurePointer>& pending() const { return pending_; }
  // Of a check in a graph: where it is, and what to tell when that was found there.
  static int slot_of(const Failure& check);
  static std::string message_of(const Failure& check, unsigned long long found);

  // While calls are captured: memory of the outside that none of those before the present one writes, from its first
  // byte to the one behind its last. A kernel of a graph may read it before the kernels ahead of it have ended.
  using Settled = std::map<const char*, const char*>;
  Settled settled;
  bool is_settled(const void* data) const {
    const auto* const byte = static_cast<const char*>(data);
    const auto behind = settled.upper_bound(byte);
    return behind != settled.begin() && byte < std::prev(behind)->second;
  }

  // The arena, which may stay in use by graphs when calls outgrow it. Null: nothing was ever asked of it.
  const std::shared_ptr<DeviceMemory>& arena() const { return arena_; }
  // From the next call on.
  void set_arena(std::shared_ptr<DeviceMemory> arena) { arena_ = std::move(arena), outgrown_.clear(); }

 private:
  static constexpr int kSlots = 1024;

  struct Check;
  int take_slot();
  void forget_check();
  Guard graph_guard();
  std::vector<const unsigned long long*> fewer_checks(const std::vector<const unsigned long long*>& checks,
                                                      size_t most);
  std::shared_ptr<DeviceMemory> make_arena(size_t bytes) const;

  std::shared_ptr<DeviceMemory> arena_;
  std::vector<std::shared_ptr<DeviceMemory>> outgrown_;  // arenas of the present call
  size_t used_ = 0;
  // Results of checks on the GPU and, copied after them, on the host. Behind them, a check that is known to have failed
  // and the counter of work.
  unsigned long long *found_ = nullptr, *found_on_host_ = nullptr;
  std::mutex slots_mutex_;
  std::vector<int> free_slots_;
  std::vector<FailurePointer> pending_;
  std::shared_ptr<Check> check_;
  const char* op_ = "";
  uint64_t ticket_ = 0;
  GraphChecks* graph_ = nullptr;
  CublasLt* cublas_lt_ = nullptr;
  Cusolver* cusolver_ = nullptr;
};

}  // namespace llmeff::cuda
