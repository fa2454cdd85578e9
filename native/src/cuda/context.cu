#include "cuda/context.h"

#include "cuda/check.h"
#include "cuda/cublas_lt.h"
#include "cuda/kernels/cuda_kernels.h"

namespace llmeff::cuda {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kFirstChunk = size_t{16} << 20;
constexpr size_t kChecked = 4096;  // more than the queue holds of calls that check values

}  // namespace

std::string message_of(const BadValueReport& report) {
  const std::string value = std::to_string(report.value), bound = std::to_string(report.bound);
  switch (report.what) {
    case BadValue::kId:
      return "[embedding] token id " + value + " is outside the vocabulary of " + bound;
    case BadValue::kTarget:
      return "[crossEntropy] target " + value + " is outside [0, " + bound + ")";
    default:
      return "[gather] index " + value + " is outside an axis of " + bound + " elements";
  }
}

Context::Context(const Facts& facts, cudaStream_t stream) : facts(facts), stream(stream), checked_(kChecked) {
  LLMEFF_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&report_), sizeof(BadValueReport), cudaHostAllocDefault));
  *report_ = {};
  LLMEFF_CUDA(cudaMalloc(reinterpret_cast<void**>(&failed_), sizeof(int)));
  LLMEFF_CUDA(cudaMemsetAsync(failed_, 0, sizeof(int), stream));
}

Context::~Context() {
  delete cublas_lt_;
  for (void* const chunk : chunks_) cudaFree(chunk);
  cudaFree(failed_);
  cudaFreeHost(report_);
}

void* Context::scratch_bytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (used_ + bytes > capacity_) {
    // What the present call has taken stays where it is; begin() keeps the largest chunk alone.
    size_t capacity = capacity_ == 0 ? kFirstChunk : capacity_ + capacity_ / 2;
    if (capacity < bytes) capacity = bytes;
    void* chunk = nullptr;
    LLMEFF_CUDA(cudaMalloc(&chunk, capacity));
    chunks_.push_back(chunk);
    capacity_ = capacity;
    used_ = 0;
  }
  void* const taken = static_cast<char*>(chunks_.back()) + used_;
  used_ += bytes;
  return taken;
}

void Context::begin(const char* op, uint64_t ticket) {
  op_ = op;
  ticket_ = ticket;
  used_ = 0;
  if (chunks_.size() <= 1) return;
  // Rare: only while calls still grow. cudaFree waits for the work that uses a chunk.
  for (size_t i = 0; i + 1 < chunks_.size(); ++i) cudaFree(chunks_[i]);
  chunks_.erase(chunks_.begin(), chunks_.end() - 1);
}

ValueCheck Context::value_check(BadValue what) {
  checked_[next_checked_++ % kChecked] = {ticket_, op_};
  return {report_, failed_, ticket_, what};
}

const char* Context::op_of(uint64_t ticket) const {
  for (const Checked& checked : checked_)
    if (checked.ticket == ticket && checked.op != nullptr) return checked.op;
  return "";
}

void Context::clear_report() {
  *report_ = {};
  LLMEFF_CUDA(cudaMemsetAsync(failed_, 0, sizeof(int), stream));
}

CublasLt* Context::find_cublas_lt() {
  if (cublas_lt_ == nullptr) cublas_lt_ = CublasLt::open(*this);
  return cublas_lt_;
}

CudaKernels::~CudaKernels() = default;

}  // namespace llmeff::cuda
