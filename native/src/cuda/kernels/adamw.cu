// AdamW (Loshchilov & Hutter 2019), fused and multi-tensor: every array is read once and written once, 28 bytes a
// float32 parameter.
//
//   g ← grad_scale·g (+ weight_decay·p unless decoupled);  m ← β1·m + (1−β1)·g;  v ← β2·v + (1−β2)·g²
//   p ← p·(1 − lr·weight_decay, if decoupled) − lr/(1−β1ᵗ) · m / (√v/√(1−β2ᵗ) + eps)
//
// Gradients of float32 parameters may have 16 bits, as of a model that computes with rounded copies of them.
//
// All loads of a thread are under way before the first is used; the factor of the gradients and the flag of failures
// are read on the GPU, so that a step waits for nothing.
#include <cmath>

#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/multi_tensor.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kTiles = 1, kChunk = kTiles * kTile;

enum Array { kParam, kCopy, kGrad, kFirst, kSecond, kMaxSecond, kArrays };

template <class W>
struct Factors {
  W beta1, one_minus_beta1, beta2, one_minus_beta2, decay_in_grad, keep, step_size, root_scale, eps;
  DType copy;
};

template <class T, class G, bool kAmsgrad>
__global__ void __launch_bounds__(kTileThreads)
    adamw_kernel(const __grid_constant__ TensorTable<kArrays> table, Factors<wide_t<T>> f,
                 const __grid_constant__ StepGuard guard) {
  using W = wide_t<T>;
  const int tensor = table.tensor_of(blockIdx.x);
  const int64_t n = table.size[tensor],
                begin = static_cast<int64_t>(blockIdx.x - table.first_chunk[tensor]) * kChunk + 4 * threadIdx.x;
  const bool aligned = table.aligned[tensor];
  T *const params = table.at<T>(kParam, tensor), *const firsts = table.at<T>(kFirst, tensor),
           *const seconds = table.at<T>(kSecond, tensor), *const max_seconds = table.at<T>(kMaxSecond, tensor);
  const G* const grads = table.at<const G>(kGrad, tensor);
  W p[kTiles][4], g[kTiles][4], m[kTiles][4], v[kTiles][4], top[kTiles][4];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile;
    load_four(params, j, n, aligned, p[t]);
    load_four(grads, j, n, aligned, g[t]);
    load_four(firsts, j, n, aligned, m[t]);
    load_four(seconds, j, n, aligned, v[t]);
    if constexpr (kAmsgrad) load_four(max_seconds, j, n, aligned, top[t]);
  }
  double factor;
  if (!guard.open(factor)) return;
  const W scale = static_cast<W>(factor);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const W grad = g[t][e] * scale + p[t][e] * f.decay_in_grad;
      m[t][e] = m[t][e] * f.beta1 + grad * f.one_minus_beta1;
      v[t][e] = v[t][e] * f.beta2 + grad * grad * f.one_minus_beta2;
      W second = v[t][e];
      if constexpr (kAmsgrad) {
        if (second < top[t][e]) second = top[t][e];
        top[t][e] = second;
      }
      p[t][e] = p[t][e] * f.keep - m[t][e] * f.step_size / (sqrt(second) * f.root_scale + f.eps);
    }
    store_four(firsts, j, n, aligned, m[t]);
    store_four(seconds, j, n, aligned, v[t]);
    if constexpr (kAmsgrad) store_four(max_seconds, j, n, aligned, top[t]);
    store_four(params, j, n, aligned, p[t]);
    store_copy(table.at<void>(kCopy, tensor), f.copy, j, n, aligned, p[t]);
  }
}

}  // namespace

void CudaKernels::adamw_step(const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                             const List<InOut>& m, const List<InOut>& v, const List<InOut>& max_v, const In& grad_scale,
                             double lr, double beta1, double beta2, double eps, double weight_decay, bool decoupled,
                             int64_t step) {
  if (params.size == 0) return;
  const double t = static_cast<double>(step);
  const double correction1 = 1.0 - std::pow(beta1, t), correction2 = 1.0 - std::pow(beta2, t);
  with_floating(params[0].dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    using W = wide_t<T>;
    const Factors<W> f = {static_cast<W>(beta1),
                          static_cast<W>(1.0 - beta1),
                          static_cast<W>(beta2),
                          static_cast<W>(1.0 - beta2),
                          static_cast<W>(decoupled ? 0.0 : weight_decay),
                          static_cast<W>(decoupled ? 1.0 - lr * weight_decay : 1.0),
                          static_cast<W>(lr / correction1),
                          static_cast<W>(1.0 / std::sqrt(correction2)),
                          static_cast<W>(eps),
                          copies.size > 0 ? copies[0].dtype : DType::kF32};
    TensorTable<kArrays> table;
    for (int64_t i = 0; i < params.size; ++i) {
      table.add(params[i].size(), kChunk,
                {&params[i], optional_view(copies, i), &grads[i], &m[i], &v[i], optional_view(max_v, i)});
      if (!table.full() && i + 1 < params.size) continue;
      with_gradients<T>(grads[0].dtype, [&]<class GradTag>(GradTag) {
        using G = typename GradTag::type;
        const auto kernel = max_v.size > 0 ? adamw_kernel<T, G, true> : adamw_kernel<T, G, false>;
        kernel<<<table.chunks(), kTileThreads, 0, cuda_.stream>>>(table, f, step_guard(cuda_, grad_scale));
        LLMEFF_LAUNCHED("adamw_kernel");
      });
      table.clear();
    }
  });
}

}  // namespace llmeff::cuda
