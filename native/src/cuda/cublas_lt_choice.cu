#include "cuda/cublas_lt_choice.h"

#include <algorithm>

#include "cuda/check.h"
#include "cuda/kernels/dtypes.cuh"

namespace llmeff::cuda::lt {
namespace {

constexpr int kThreads = 256, kRounds = 3, kRuns = 2;
constexpr float kGain = 0.98f;  // of the first one's time: what is nearer is noise

// Uniform in [-1, 1), by a mixture of the bits of the position (the finaliser of MurmurHash3).
template <class T>
__global__ void fill_kernel(T* x, int64_t count, uint32_t seed) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    uint32_t bits = static_cast<uint32_t>(i) ^ static_cast<uint32_t>(i >> 32) * 0x9E3779B9u ^ seed;
    bits = (bits ^ bits >> 16) * 0x85EBCA6Bu;
    bits = (bits ^ bits >> 13) * 0xC2B2AE35u;
    x[i] = narrow<T>(static_cast<wide_t<T>>(static_cast<int32_t>(bits ^ bits >> 16)) * wide_t<T>(0x1p-31));
  }
}

__global__ void compare_kernel(const uint4* a, const uint4* b, int64_t count, int* differs) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  bool differ = false;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const uint4 x = a[i], y = b[i];
    differ |= x.x != y.x || x.y != y.y || x.z != y.z || x.w != y.w;
  }
  if (differ) *differs = 1;
}

// Memory of the GPU for one choice.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { cudaFree(data_); }

  bool take(size_t bytes) {
    if (cudaMalloc(&data_, bytes) == cudaSuccess) return true;
    cudaGetLastError();
    return false;
  }
  char* data() const { return static_cast<char*>(data_); }

 private:
  void* data_ = nullptr;
};

class Stopwatch {
 public:
  Stopwatch() {
    LLMEFF_CUDA(cudaEventCreate(&begin_));
    LLMEFF_CUDA(cudaEventCreate(&end_));
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  template <class F>
  float milliseconds(cudaStream_t stream, F&& work) {
    LLMEFF_CUDA(cudaEventRecord(begin_, stream));
    work();
    LLMEFF_CUDA(cudaEventRecord(end_, stream));
    LLMEFF_CUDA(cudaEventSynchronize(end_));
    float time = 0;
    LLMEFF_CUDA(cudaEventElapsedTime(&time, begin_, end_));
    return time;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

size_t padded_bytes(const Extent& x) {
  return static_cast<size_t>((x.count * item_size(x.dtype) + 255) / 256 * 256);
}

class Candidates {
 public:
  Candidates(Context& cuda, const Functions& f, const Trial& trial, const Heuristic* candidates)
      : cuda_(cuda), f_(f), trial_(trial), candidates_(candidates) {}

  bool take_memory() {
    const size_t a = padded_bytes(trial_.a), b = padded_bytes(trial_.b), d = padded_bytes(trial_.d),
                 bias = padded_bytes(trial_.bias);
    size_t free = 0, total = 0;
    LLMEFF_CUDA(cudaMemGetInfo(&free, &total));
    const size_t wanted = a + b + 2 * d + bias + 256;
    if (wanted > free / 2 || !memory_.take(wanted)) return false;
    a_ = memory_.data(), b_ = a_ + a, first_ = b_ + b, other_ = first_ + d, bias_ = other_ + d;
    differs_ = reinterpret_cast<int*>(bias_ + bias);
    fill(trial_.a, a_, 1), fill(trial_.b, b_, 2), fill(trial_.bias, bias_, 3);
    if (trial_.bias.count > 0) f_.matmul_set(trial_.matmul, kBiasPointer, &bias_, sizeof bias_);
    return true;
  }
  bool run_first() { return run_anew(0, first_); }
  // Whether one runs, and its result has the bits of the first one's.
  bool is_alike(int index) {
    int differs = 0;
    LLMEFF_CUDA(cudaMemsetAsync(differs_, 0, sizeof *differs_, cuda_.stream));
    if (!run_anew(index, other_)) return false;
    compare_kernel<<<blocks(), kThreads, 0, cuda_.stream>>>(
        reinterpret_cast<const uint4*>(first_), reinterpret_cast<const uint4*>(other_),
        static_cast<int64_t>(padded_bytes(trial_.d) / 16), differs_);
    LLMEFF_LAUNCHED("compare_kernel");
    LLMEFF_CUDA(cudaMemcpyAsync(&differs, differs_, sizeof differs, cudaMemcpyDeviceToHost, cuda_.stream));
    LLMEFF_CUDA(cudaStreamSynchronize(cuda_.stream));
    return differs == 0;
  }
  float milliseconds(int index) {
    return stopwatch_.milliseconds(cuda_.stream, [&] {
      for (int run = 0; run < kRuns; ++run) this->run(index, other_);
    });
  }

 private:
  unsigned blocks() const { return static_cast<unsigned>(8 * cuda_.facts.multiprocessors); }
  void fill(const Extent& x, char* data, uint32_t seed) {
    with_floating(x.dtype, [&]<class Tag>(Tag) {
      using T = typename Tag::type;
      // The padding too, which is compared.
      fill_kernel<T><<<blocks(), kThreads, 0, cuda_.stream>>>(reinterpret_cast<T*>(data),
                                                              static_cast<int64_t>(padded_bytes(x) / sizeof(T)), seed);
      LLMEFF_LAUNCHED("fill_kernel");
    });
  }
  bool run_anew(int index, char* d) {
    fill(trial_.d, d, 4);
    return run(index, d);
  }
  bool run(int index, char* d) {
    const Heuristic& x = candidates_[index];
    return f_.run(trial_.library, trial_.matmul, trial_.alpha, a_, trial_.a_layout, b_, trial_.b_layout, trial_.beta, d,
                  trial_.d_layout, d, trial_.d_layout, &x.algorithm, trial_.workspace, x.workspace, cuda_.stream) == 0;
  }

  Context& cuda_;
  const Functions& f_;
  const Trial& trial_;
  const Heuristic* candidates_;
  Memory memory_;
  Stopwatch stopwatch_;
  char *a_ = nullptr, *b_ = nullptr, *first_ = nullptr, *other_ = nullptr, *bias_ = nullptr;
  int* differs_ = nullptr;
};

}  // namespace

int fastest_alike(Context& cuda, const Functions& f, const Trial& trial, const Heuristic* candidates, int count) {
  Candidates trials(cuda, f, trial, candidates);
  if (!trials.take_memory() || !trials.run_first()) return 0;
  int alike[kMostCandidates] = {0}, left = 1;
  for (int i = 1; i < count; ++i)
    if (trials.is_alike(i)) alike[left++] = i;
  if (left == 1) return 0;
  float best[kMostCandidates];
  std::fill(best, best + left, INFINITY);
  // In turns, so that a change of the clock's rate meets all of them.
  for (int round = 0; round < kRounds; ++round)
    for (int i = 0; i < left; ++i) best[i] = std::min(best[i], trials.milliseconds(alike[i]));
  const auto fastest = std::min_element(best, best + left) - best;
  return best[fastest] < kGain * best[0] ? alike[fastest] : 0;
}

}  // namespace llmeff::cuda::lt
