#include "cuda/context.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "cuda/check.h"
#include "cuda/cublas_lt.h"
#include "cuda/cusolver.h"
#include "cuda/kernels/cuda_kernels.h"

namespace llmeff::cuda {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kFirstArena = size_t{16} << 20;

// One check that fails when any of several has failed.
__global__ void join_checks_kernel(const __grid_constant__ Guard checks, unsigned long long* all) {
  if (checks.closed()) *all = 0;
}

void* allocated(size_t bytes) {
  void* data = nullptr;
  LLMEFF_CUDA(cudaMalloc(&data, bytes));
  return data;
}

int take_slot(GraphChecks& graph) {
  if (graph.used == graph.slots) fail("ERR_INTERNAL", "[cuda] a graph has more checks of values than calls.");
  return graph.used++;
}

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

DeviceMemory::DeviceMemory(size_t bytes) : DeviceMemory(allocated(bytes), bytes) {}

DeviceMemory::DeviceMemory(void* data, size_t bytes) : data(data), bytes(bytes) {}

DeviceMemory::~DeviceMemory() {
  cudaFree(data);
}

// A check of the values that one call was given.
struct Context::Check : Failure {
  int slot;
  Message tell;
};

Context::Context(const Facts& facts, cudaStream_t stream) : facts(facts), stream(stream) {
  // The one after the last slot is never all ones: what a guard looks at for a check that is known to have failed.
  LLMEFF_CUDA(cudaMalloc(reinterpret_cast<void**>(&found_), (kSlots + 2) * sizeof(*found_)));
  LLMEFF_CUDA(cudaMemsetAsync(found_ + kSlots, 0, 2 * sizeof(*found_), stream));
  LLMEFF_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&found_on_host_), kSlots * sizeof(*found_), cudaHostAllocDefault));
  for (int slot = kSlots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

Context::~Context() {
  delete cusolver_;
  delete cublas_lt_;
  cudaFree(found_);
  cudaFreeHost(found_on_host_);
}

void* Context::scratch_bytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const size_t capacity = arena_ == nullptr ? 0 : arena_->bytes;
  if (used_ + bytes > capacity) {
    // What the present call has taken stays where it is until the next one begins.
    auto larger = make_arena(std::max(bytes, capacity == 0 ? kFirstArena : capacity + capacity / 2));
    if (arena_ != nullptr) outgrown_.push_back(arena_);
    arena_ = std::move(larger);
    used_ = 0;
  }
  void* const taken = static_cast<char*>(arena_->data) + used_;
  used_ += bytes;
  return taken;
}

std::shared_ptr<DeviceMemory> Context::make_arena(size_t bytes) const {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation && memory_state) {
    cudaGetLastError();
    fail("ERR_OUT_OF_MEMORY", "[%s] out of memory: the kernel itself needs %zu bytes while %s", op_, bytes,
         memory_state().c_str());
  }
  LLMEFF_CUDA(status);
  return std::make_shared<DeviceMemory>(data, bytes);
}

void Context::begin(const char* op, uint64_t ticket, const std::vector<FailurePointer>& pending) {
  op_ = op;
  ticket_ = ticket;
  pending_ = pending;
  forget_check();
  used_ = 0;
  // Rare: only while calls still grow. cudaFree waits for the work that uses an arena; during a capture nothing may.
  if (graph_ == nullptr) outgrown_.clear();
}

// Of a call that threw.
void Context::forget_check() {
  if (check_ == nullptr) return;
  if (graph_ == nullptr) {
    std::lock_guard lock(slots_mutex_);
    free_slots_.push_back(check_->slot);
  }
  check_ = nullptr;
}

void Context::capture(GraphChecks* graph) {
  forget_check();
  graph_ = graph;
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
  check_->slot = graph_ == nullptr ? take_slot() : cuda::take_slot(*graph_);
  check_->tell = std::move(message);
  check_->op = op_;
  check_->ticket = ticket_;
  check_->code = code;
  check_->state = Failure::State::kPending;
  unsigned long long* const found = (graph_ == nullptr ? found_ : graph_->found()) + check_->slot;
  check_->check = found;
  if (graph_ == nullptr) LLMEFF_CUDA(cudaMemsetAsync(found, 0xFF, sizeof(*found), stream));
  return {found};
}

Guard Context::guard() {
  if (graph_ != nullptr) return graph_guard();
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
    guard.checks[guard.count++] =
        state == Failure::State::kFailed ? found_ + kSlots : static_cast<const unsigned long long*>(check->check);
  }
  if (check_ != nullptr) guard.checks[guard.count++] = found_ + check_->slot;
  return guard;
}

// As above, of a graph: its checks are pending in every launch, and nobody can wait for them.
Guard Context::graph_guard() {
  Guard guard{};
  if (check_ != nullptr) guard.checks[guard.count++] = static_cast<const unsigned long long*>(check_->check);
  std::vector<const unsigned long long*> checks;
  for (const FailurePointer& check : pending_) checks.push_back(static_cast<const unsigned long long*>(check->check));
  for (const auto* check : fewer_checks(checks, static_cast<size_t>(Guard::kMost - guard.count)))
    guard.checks[guard.count++] = check;
  return guard;
}

// At most so many that stand for all of them. Most calls depend on what an earlier one did, and on little more: what
// was joined for that one is joined once.
std::vector<const unsigned long long*> Context::fewer_checks(const std::vector<const unsigned long long*>& checks,
                                                             size_t most) {
  if (checks.size() <= most) return checks;
  using Checks = std::vector<const unsigned long long*>;
  GraphChecks::Joint& joint = graph_->joint;
  const auto is_joined = [&](const unsigned long long* check) {
    return std::find(joint.checks.begin(), joint.checks.end(), check) != joint.checks.end();
  };
  Checks fewer = checks;
  const auto rest = std::stable_partition(fewer.begin(), fewer.end(), is_joined);
  if (static_cast<size_t>(rest - fewer.begin()) < joint.checks.size()) joint = {};  // of no use for this call
  if (joint.all != nullptr) {
    fewer.erase(fewer.begin(), rest);
    fewer.insert(fewer.begin(), joint.all);
  }
  if (fewer.size() <= most) return fewer;
  // The first ones, as many as fill guards.
  const size_t full = (fewer.size() - most + Guard::kMost) / Guard::kMost * Guard::kMost;
  const auto end = fewer.begin() + static_cast<std::ptrdiff_t>(std::min(full, fewer.size()));
  unsigned long long* const all = graph_->found() + cuda::take_slot(*graph_);
  Checks joined = joint.checks;
  for (auto check = fewer.begin(); check != end;) {
    Guard some{};
    for (; check != end && some.count < Guard::kMost; ++check) {
      some.checks[some.count++] = *check;
      if (*check != joint.all) joined.push_back(*check);
    }
    join_checks_kernel<<<1, 1, 0, stream>>>(some, all);
    LLMEFF_LAUNCHED("join_checks_kernel");
  }
  joint = {std::move(joined), all};
  fewer.erase(fewer.begin(), end);
  fewer.insert(fewer.begin(), all);
  return fewer;
}

int Context::slot_of(const Failure& check) {
  return static_cast<const Check&>(check).slot;
}

std::string Context::message_of(const Failure& check, unsigned long long found) {
  return static_cast<const Check&>(check).tell(static_cast<int64_t>(found >> 32), static_cast<int32_t>(found));
}

FailurePointer Context::end() {
  if (graph_ == nullptr) pending_.clear();
  if (check_ == nullptr) return nullptr;
  if (graph_ != nullptr) {
    graph_->checks.push_back(check_);
    return std::exchange(check_, nullptr);
  }
  LLMEFF_CUDA(cudaMemcpyAsync(found_on_host_ + check_->slot, found_ + check_->slot, sizeof(*found_),
                              cudaMemcpyDeviceToHost, stream));
  return std::exchange(check_, nullptr);
}

void Context::settle(Failure& failure) {
  const int slot = slot_of(failure);
  const unsigned long long found = found_on_host_[slot];
  if (found != ~0ull) failure.message = message_of(failure, found);
  failure.state = found == ~0ull ? Failure::State::kPassed : Failure::State::kFailed;
  std::lock_guard lock(slots_mutex_);
  free_slots_.push_back(slot);
}

CublasLt* Context::find_cublas_lt() {
  if (cublas_lt_ == nullptr) cublas_lt_ = CublasLt::open(*this);
  return cublas_lt_;
}

Cusolver* Context::find_cusolver() {
  // It works with memory of the host, which is another one when a graph runs.
  if (capturing())
    fail("ERR_CAPTURE", "[%s] can't be part of a captured step on a GPU: cuSOLVER is not recorded. Call it outside.",
         op_);
  if (cusolver_ == nullptr) cusolver_ = Cusolver::open(*this);
  return cusolver_;
}

CudaKernels::~CudaKernels() = default;

}  // namespace llmeff::cuda
