// AdamW (Loshchilov & Hutter 2019), fused: every array is read once and written once, 28 bytes a float32 parameter.
//
//   g ← grad_scale·g (+ weight_decay·p unless decoupled);  m ← β1·m + (1−β1)·g;  v ← β2·v + (1−β2)·g²
//   p ← p·(1 − lr·weight_decay, if decoupled) − lr/(1−β1ᵗ) · m / (√v/√(1−β2ᵗ) + eps)
#include "cpu_kernels.h"
#include "llmeff/parallel.h"
#include "multi_tensor.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// The factors of one step, computed in float64.
template <class T>
struct AdamFactors {
  T grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, decay_in_grad, keep, step_size, root_scale, eps;
};

template <class T, bool kAmsgrad, bool kFull>
LLMEFF_INLINE void adamw_vector(const AdamFactors<T>& f, T* p, const T* g, T* m, T* v, T* max_v, int64_t n) {
  const Vec<T> p0 = load_n<kFull>(p, n);
  const Vec<T> grad = load_n<kFull>(g, n) * f.grad_scale + p0 * f.decay_in_grad;
  const Vec<T> m1 = load_n<kFull>(m, n) * f.beta1 + grad * f.one_minus_beta1;
  const Vec<T> v1 = load_n<kFull>(v, n) * f.beta2 + grad * grad * f.one_minus_beta2;
  Vec<T> second = v1;
  store_n<kFull>(m, m1, n);
  store_n<kFull>(v, v1, n);
  if constexpr (kAmsgrad) {
    second = vmax(load_n<kFull>(max_v, n), v1);
    store_n<kFull>(max_v, second, n);
  }
  const Vec<T> denominator = square_roots<T>(second) * f.root_scale + f.eps;
  store_n<kFull>(p, p0 * f.keep - m1 * f.step_size / denominator, n);
}

template <class T, bool kAmsgrad>
void adamw_chunk(const AdamFactors<T>& f, T* p, const T* g, T* m, T* v, T* max_v, int64_t n) {
  constexpr int64_t kWidth = kLanes<T>;
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth)
    adamw_vector<T, kAmsgrad, true>(f, p + i, g + i, m + i, v + i, max_v + i, kWidth);
  if (i < n) adamw_vector<T, kAmsgrad, false>(f, p + i, g + i, m + i, v + i, max_v + i, n - i);
}

}  // namespace

void CpuKernels::adamw_step(const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                            const List<InOut>& m, const List<InOut>& v, const List<InOut>& max_v, const In& grad_scale,
                            double lr, double beta1, double beta2, double eps, double weight_decay, bool decoupled,
                            int64_t step) {
  const double scale = read_scale(grad_scale);
  if (!is_finite(scale) || params.size == 0) return;
  const double t = static_cast<double>(step);
  const double correction1 = 1.0 - __builtin_pow(beta1, t), correction2 = 1.0 - __builtin_pow(beta2, t);

  const int64_t count = count_chunks(params);
  Chunk* const chunks = shared_scratch<Chunk>(count);
  cut_into_chunks(params, chunks);

  const auto run = [&]<class T>(T) {
    const AdamFactors<T> f = {static_cast<T>(scale),
                              static_cast<T>(beta1),
                              static_cast<T>(1.0 - beta1),
                              static_cast<T>(beta2),
                              static_cast<T>(1.0 - beta2),
                              static_cast<T>(decoupled ? 0.0 : weight_decay),
                              static_cast<T>(decoupled ? 1.0 - lr * weight_decay : 1.0),
                              static_cast<T>(lr / correction1),
                              static_cast<T>(1.0 / __builtin_sqrt(correction2)),
                              static_cast<T>(eps)};
    parallel_for(count, [&](int64_t i, int) {
      const Chunk& c = chunks[i];
      T* const p = params[c.tensor].as<T>() + c.begin;
      const T* const g = grads[c.tensor].as<T>() + c.begin;
      T* const m1 = m[c.tensor].as<T>() + c.begin;
      T* const v1 = v[c.tensor].as<T>() + c.begin;
      if (max_v.size > 0)
        adamw_chunk<T, true>(f, p, g, m1, v1, max_v[c.tensor].as<T>() + c.begin, c.end - c.begin);
      else
        adamw_chunk<T, false>(f, p, g, m1, v1, v1, c.end - c.begin);
      if (copies.size > 0) copy_params(params[c.tensor].as<T>(), copies[c.tensor], c.begin, c.end);
    });
  };
  if (params[0].dtype == DType::kF64)
    run(double{});
  else
    run(float{});
}

}  // namespace llmeff::cpu::LLMEFF_ISA
