// The CUDA kernels beside those of the CPU: arrays exist twice, on the host in float64 and on the GPU in the dtype under
// test, a call is made on both, and the results are compared. Inputs are exact in the dtype, outputs are poisoned.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/kernels/cuda_kernels.h"
#include "llmeff/kernels.h"
#include "row_major.h"
#include "test.h"

namespace llmeff::test {

inline bool is_floating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16 || dtype == DType::kF16;
}

inline const char* name_of(DType dtype) {
  constexpr const char* kNames[] = {"float32", "float64", "bfloat16", "float16", "int32", "uint8", "bool"};
  return kNames[static_cast<int>(dtype)];
}

// Half of the distance between 1 and the next number.
inline double rounding(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return 0x1p-53;
    case DType::kBF16:
      return 0x1p-8;
    case DType::kF16:
      return 0x1p-11;
    default:
      return 0x1p-24;
  }
}

// GPU memory by powers of two, kept for the next array: cudaMalloc and cudaFree would take most of the time of the tests.
inline std::map<size_t, std::vector<void*>>& free_memory() {
  static auto* const lists = new std::map<size_t, std::vector<void*>>();
  return *lists;
}
inline size_t power_from(size_t bytes) {
  size_t power = 256;
  while (power < bytes) power *= 2;
  return power;
}
inline void* take_memory(size_t bytes) {
  std::vector<void*>& blocks = free_memory()[power_from(bytes)];
  void* block = nullptr;
  if (blocks.empty()) {
    LLMEFF_CUDA(cudaMalloc(&block, power_from(bytes)));
  } else {
    block = blocks.back();
    blocks.pop_back();
  }
  return block;
}

// An array on both sides.
class Twin {
 public:
  Twin() = default;  // absent
  Twin(DType dtype, const std::vector<int64_t>& shape) {
    int64_t size = 1;
    for (const int64_t n : shape) size *= n;
    const DType host_dtype = is_floating(dtype) ? DType::kF64 : dtype;
    storage_ = std::make_shared<Storage>();
    storage_->host.resize(static_cast<size_t>(size * item_size(host_dtype)));
    storage_->bytes = static_cast<size_t>(size * item_size(dtype));
    storage_->device = take_memory(storage_->bytes + 1);
    LLMEFF_CUDA(cudaMemset(storage_->device, 0xFF, storage_->bytes));  // NaN; -1
    LLMEFF_CUDA(cudaDeviceSynchronize());                               // kernels go to a stream that doesn't wait
    std::memset(storage_->host.data(), 0xFF, storage_->host.size());
    host_ = row_major(storage_->host.data(), host_dtype, shape);
    device_ = row_major(storage_->device, dtype, shape);
  }

  // Other axes of the same memory; the offset counts elements.
  Twin as(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides, int64_t offset = 0) const {
    Twin other = *this;
    for (View* v : {&other.host_, &other.device_}) {
      v->data = static_cast<char*>(v->data) + offset * item_size(v->dtype);
      v->rank = static_cast<int>(shape.size());
      for (size_t i = 0; i < shape.size(); ++i) v->shape[i] = shape[i], v->strides[i] = strides[i];
    }
    return other;
  }

  bool present() const { return storage_ != nullptr; }
  DType dtype() const { return device_.dtype; }
  const View& host() const { return host_; }
  const View& device() const { return device_; }
  // All of the memory, in its order.
  int64_t capacity() const { return static_cast<int64_t>(storage_->bytes) / item_size(device_.dtype); }
  double* values() { return reinterpret_cast<double*>(storage_->host.data()); }
  int32_t* integers() { return reinterpret_cast<int32_t*>(storage_->host.data()); }
  uint8_t* bytes() { return storage_->host.data(); }

  // Host to GPU, rounded to the dtype; the host keeps the rounded values.
  void send(Kernels& cpu) {
    std::vector<uint8_t> raw(storage_->bytes);
    const View from = row_major(storage_->host.data(), host_.dtype, {capacity()});
    const View to = row_major(raw.data(), device_.dtype, {capacity()});
    cpu.copy(In{from}, Out{to});
    cpu.copy(In{to}, Out{from});
    LLMEFF_CUDA(cudaMemcpy(storage_->device, raw.data(), raw.size(), cudaMemcpyHostToDevice));
    LLMEFF_CUDA(cudaDeviceSynchronize());
  }
  // What the GPU's array holds, in float64 (integers as they are), in the order of the memory.
  std::vector<double> received(Kernels& cpu) const {
    std::vector<uint8_t> raw(storage_->bytes);
    LLMEFF_CUDA(cudaMemcpy(raw.data(), storage_->device, raw.size(), cudaMemcpyDeviceToHost));
    std::vector<double> wide(static_cast<size_t>(capacity()));
    cpu.copy(In{row_major(raw.data(), device_.dtype, {capacity()})}, Out{row_major(wide.data(), DType::kF64, {capacity()})});
    return wide;
  }
  std::vector<double> wanted(Kernels& cpu) const {
    std::vector<double> wide(static_cast<size_t>(capacity()));
    cpu.copy(In{row_major(storage_->host.data(), host_.dtype, {capacity()})},
             Out{row_major(wide.data(), DType::kF64, {capacity()})});
    return wide;
  }

 private:
  struct Storage {
    std::vector<uint8_t> host;
    void* device = nullptr;
    size_t bytes = 0;
    ~Storage() { free_memory()[power_from(bytes + 1)].push_back(device); }
  };
  std::shared_ptr<Storage> storage_;
  View host_, device_;
};

class Lab {
 public:
  Lab();  // once for the process: lab()

  Kernels& cpu() { return cpu_; }
  cuda::Context& context() { return *context_; }
  cuda::CudaKernels& gpu() { return *gpu_; }
  Numbers random{20261129};

  // Uniform in [-scale, scale) + offset.
  Twin uniform(DType dtype, const std::vector<int64_t>& shape, double scale = 1, double offset = 0) {
    Twin x(dtype, shape);
    for (int64_t i = 0; i < x.capacity(); ++i) x.values()[i] = offset + scale * random();
    x.send(cpu_);
    return x;
  }
  // int32 in [low, high).
  Twin integers(const std::vector<int64_t>& shape, int32_t low, int32_t high) {
    Twin x(DType::kI32, shape);
    for (int64_t i = 0; i < x.capacity(); ++i)
      x.integers()[i] = low + static_cast<int32_t>(random.bits() % static_cast<uint64_t>(high - low));
    x.send(cpu_);
    return x;
  }

  // call(kernels, side) on both: side(twin) is its view there, side(absent) an absent one.
  template <class F>
  void both(F&& call) {
    call(cpu_, [](const Twin& twin) -> const View& { return twin.host(); });
    context_->begin("test", ++ticket_, {});
    call(static_cast<Kernels&>(*gpu_), [](const Twin& twin) -> const View& { return twin.device(); });
    const FailurePointer check = context_->end();
    LLMEFF_CUDA(cudaStreamSynchronize(context_->stream));
    if (check != nullptr) context_->settle(*check);
  }

  // call() on the GPU alone: what its check of values found, settled, or null; `pending` are checks that updates in place
  // depend on.
  template <class F>
  FailurePointer alone(F&& call, const std::vector<FailurePointer>& pending = {}) {
    context_->begin("test", ++ticket_, pending);
    call();
    const FailurePointer check = context_->end();
    LLMEFF_CUDA(cudaStreamSynchronize(context_->stream));
    if (check != nullptr) context_->settle(*check);
    return check;
  }

  // |got − want| ≤ tolerance · (magnitude + |want|) everywhere in the memory of `twin`.
  void expect(const std::string& what, const Twin& twin, double tolerance, double magnitude = 1);

 private:
  Kernels& cpu_;
  std::unique_ptr<cuda::Context> context_;
  std::unique_ptr<cuda::CudaKernels> gpu_;
  uint64_t ticket_ = 0;
};

Lab& lab();

}  // namespace llmeff::test
