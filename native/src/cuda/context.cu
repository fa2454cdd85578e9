#include "cuda/context.h"

#include <thread>
#include <utility>

#include "cuda/check.h"
#include "cuda/cublas_lt.h"
#include "cuda/cusolver.h"
#include "cuda/kernels/cuda_kernels.h"

namespace llmeff::cuda {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kFirstChunk = size_t{16} << 20;
constexpr int kSlots = 1024;

}  // namespace

Facts facts_of(int index) {
  cudaDeviceProp properties;
  LLMEFF_CUDA(cudaGetDeviceProperties(&properties, index));
  Facts facts;
  facts.index = index;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.capability = 10 * properties.major + properties.minor;
  facts.shared_bytes_per_block = properties.sharedMemPerBlockOptin;
  return facts;
}

// A check of the values that one call was given.
struct Context::Check : Failure {
  int slot;
  Message tell;
};

Context::Context(const Facts& facts, cudaStream_t stream) : facts(facts), stream(stream) {
  // The one after the last slot is never all ones: what a guard looks at for a check that is known to have failed.
  LLMEFF_CUDA(cudaMalloc(reinterpret_cast<void**>(&found_), (kSlots + 1) * sizeof(*found_)));
  LLMEFF_CUDA(cudaMemsetAsync(found_ + kSlots, 0, sizeof(*found_), stream));
  LLMEFF_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&found_on_host_), kSlots * sizeof(*found_), cudaHostAllocDefault));
  for (int slot = kSlots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

Context::~Context() {
  delete cusolver_;
  delete cublas_lt_;
  for (void* const chunk : chunks_) cudaFree(chunk);
  cudaFree(found_);
  cudaFreeHost(found_on_host_);
}

void* Context::scratch_bytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (used_ + bytes > capacity_) {
    // What the present call has taken stays where it is; begin() keeps the largest chunk alone.
    size_t capacity = capacity_ == 0 ? kFirstChunk : capacity_ + capacity_ / 2;
    if (capacity < bytes) capacity = bytes;
    void* chunk = nullptr;
    const cudaError_t status = cudaMalloc(&chunk, capacity);
    if (status == cudaErrorMemoryAllocation && memory_state) {
      cudaGetLastError();
      fail("ERR_OUT_OF_MEMORY", "[%s] out of memory: the kernel itself needs %zu bytes while %s", op_, capacity,
           memory_state().c_str());
    }
    LLMEFF_CUDA(status);
    chunks_.push_back(chunk);
    capacity_ = capacity;
    used_ = 0;
  }
  void* const taken = static_cast<char*>(chunks_.back()) + used_;
  used_ += bytes;
  return taken;
}

void Context::begin(const char* op, uint64_t ticket, const std::vector<FailurePointer>& pending) {
  op_ = op;
  ticket_ = ticket;
  pending_ = pending;
  if (check_ != nullptr) {  // of a call that threw
    std::lock_guard lock(slots_mutex_);
    free_slots_.push_back(check_->slot);
    check_ = nullptr;
  }
  used_ = 0;
  if (chunks_.size() <= 1) return;
  // Rare: only while calls still grow. cudaFree waits for the work that uses a chunk.
  for (size_t i = 0; i + 1 < chunks_.size(); ++i) cudaFree(chunks_[i]);
  chunks_.erase(chunks_.begin(), chunks_.end() - 1);
}

int Context::take_slot() {
  for (;;) {
    {
      std::lock_guard lock(slots_mutex_);
      if (!free_slots_.empty()) {
        const int slot = free_slots_.back();
        free_slots_.pop_back();
        return slot;
      }
    }
    LLMEFF_CUDA(cudaStreamSynchronize(stream));  // the thread that settles checks comes after it
    std::this_thread::yield();
  }
}

ValueCheck Context::check_values(Message message, const char* code) {
  check_ = std::make_shared<Check>();
  check_->slot = take_slot();
  check_->tell = std::move(message);
  check_->op = op_;
  check_->ticket = ticket_;
  check_->code = code;
  check_->state = Failure::State::kPending;
  check_->check = found_ + check_->slot;
  LLMEFF_CUDA(cudaMemsetAsync(found_ + check_->slot, 0xFF, sizeof(*found_), stream));
  return {found_ + check_->slot};
}

Guard Context::guard() {
  // The GPU is far behind: the checks are waited for, so that those left are few.
  const auto is_pending = [](const FailurePointer& check) { return check->state == Failure::State::kPending; };
  if (pending_.size() >= Guard::kMost) {
    LLMEFF_CUDA(cudaStreamSynchronize(stream));
    for (const FailurePointer& check : pending_)
      while (is_pending(check)) std::this_thread::yield();
  }
  Guard guard{};
  for (const FailurePointer& check : pending_) {
    const Failure::State state = check->state;
    if (state == Failure::State::kPassed || guard.count == Guard::kMost - 1) continue;
    // The slot of a check that was settled meanwhile may be this call's own by now.
    guard.checks[guard.count++] = state == Failure::State::kFailed
                                      ? found_ + kSlots
                                      : static_cast<const unsigned long long*>(check->check);
  }
  if (check_ != nullptr) guard.checks[guard.count++] = found_ + check_->slot;
  return guard;
}

FailurePointer Context::end() {
  pending_.clear();
  if (check_ == nullptr) return nullptr;
  LLMEFF_CUDA(cudaMemcpyAsync(found_on_host_ + check_->slot, found_ + check_->slot, sizeof(*found_),
                              cudaMemcpyDeviceToHost, stream));
  return std::exchange(check_, nullptr);
}

void Context::settle(Failure& failure) {
  auto& check = static_cast<Check&>(failure);
  const unsigned long long found = found_on_host_[check.slot];
  if (found != ~0ull)
    failure.message = check.tell(static_cast<int64_t>(found >> 32), static_cast<int32_t>(found & 0xFFFFFFFF));
  failure.state = found == ~0ull ? Failure::State::kPassed : Failure::State::kFailed;
  std::lock_guard lock(slots_mutex_);
  free_slots_.push_back(check.slot);
}

CublasLt* Context::find_cublas_lt() {
  if (cublas_lt_ == nullptr) cublas_lt_ = CublasLt::open(*this);
  return cublas_lt_;
}

Cusolver* Context::find_cusolver() {
  if (cusolver_ == nullptr) cusolver_ = Cusolver::open(*this);
  return cusolver_;
}

CudaKernels::~CudaKernels() = default;

}  // namespace llmeff::cuda
