// Element-wise optimizer rules, fused and multi-tensor: every array is read once and written once.
#include "cpu_kernels.h"
#include "half.h"
#include "llmeff/parallel.h"
#include "llmeff/update_rules.h"
#include "multi_tensor.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

struct VectorMath {
  static LLMEFF_INLINE Vec<float> sqrt(Vec<float> x) { return square_roots<float>(x); }
  static LLMEFF_INLINE Vec<double> sqrt(Vec<double> x) { return square_roots<double>(x); }
};

// Elements [i, i + n) of the parameter and its states; n is the length of a vector if kFull, and less if not.
template <bool kFull, class Rule, class T, class G, int kUpdated>
LLMEFF_INLINE void step_vector(const Rule& rule, T scale, T* const (&arrays)[kUpdated], const G* g, int64_t i,
                               int64_t n) {
  Vec<T> x[kUpdated];
#pragma GCC unroll 4
  for (int k = 0; k < kUpdated; ++k) x[k] = load_n<kFull>(arrays[k] + i, n);
  rule.template update<VectorMath>(x, load_n<kFull>(g + i, n) * scale);
#pragma GCC unroll 4
  for (int k = 0; k < kUpdated; ++k) store_n<kFull>(arrays[k] + i, x[k], n);
}

template <class Rule, class T, class G, int kUpdated>
void step_chunk(const Rule& rule, T scale, T* const (&arrays)[kUpdated], const G* g, int64_t n) {
  constexpr int64_t kWidth = kLanes<T>;
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) step_vector<true>(rule, scale, arrays, g, i, kWidth);
  if (i < n) step_vector<false>(rule, scale, arrays, g, i, n - i);
}

// body(pointer to the elements) for gradients of a dtype that goes with parameters of type T.
template <class T, class F>
LLMEFF_INLINE void with_gradient(const In& grad, const F& body) {
  if constexpr (sizeof(T) == 8) {
    if (grad.dtype == DType::kF64) return body(grad.as<const double>());
  } else {
    if (grad.dtype == DType::kF32) return body(grad.as<const float>());
    if (grad.dtype == DType::kBF16) return body(grad.as<const BFloat16>());
    if (grad.dtype == DType::kF16) return body(grad.as<const Float16>());
  }
  fail("ERR_DTYPE", "[optimizer] gradients have dtype %d, which doesn't go with that of their parameters.",
       static_cast<int>(grad.dtype));
}

template <class H>
void round_params(const float* p, H* copy, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) narrow(p[i], copy + i);
}
template <class T>
void store_copy(const T* p, const InOut& copy, int64_t begin, int64_t end) {
  if constexpr (sizeof(T) == 4) {
    if (copy.dtype == DType::kBF16) return round_params(p, copy.as<BFloat16>(), begin, end);
    if (copy.dtype == DType::kF16) return round_params(p, copy.as<Float16>(), begin, end);
  }
  copy_params(p, copy, begin, end);
}

}  // namespace

void CpuKernels::optimizer_step(UpdateRule rule, const List<InOut>& params, const List<InOut>& copies,
                                const List<In>& grads, const List<InOut>& states, const List<double>& factors,
                                const In& grad_scale) {
  const double scale = read_scale(grad_scale);
  if (!is_finite(scale) || params.size == 0) return;

  const int64_t count = count_chunks(params);
  Chunk* const chunks = shared_scratch<Chunk>(count);
  cut_into_chunks(params, chunks);

  const auto run = [&]<class T>(T factor) {
    rules::with_rule<T>(rule, factors, [&]<class Rule>(const Rule& made) {
      constexpr int kStates = Rule::kStates;
      rules::check_lists(kStates, params, copies, grads, states);
      parallel_for(count, [&](int64_t i, int) {
        const Chunk& c = chunks[i];
        T* arrays[1 + kStates] = {params[c.tensor].as<T>() + c.begin};
        for (int k = 0; k < kStates; ++k)
          arrays[1 + k] = rules::state_of(states, params.size, k, c.tensor).template as<T>() + c.begin;
        with_gradient<T>(grads[c.tensor],
                         [&](const auto* g) { step_chunk(made, factor, arrays, g + c.begin, c.end - c.begin); });
        if (copies.size > 0) store_copy(params[c.tensor].as<T>(), copies[c.tensor], c.begin, c.end);
      });
    });
  };
  if (params[0].dtype == DType::kF64)
    run(scale);
  else
    run(static_cast<float>(scale));
}

}  // namespace llmeff::cpu::LLMEFF_ISA
