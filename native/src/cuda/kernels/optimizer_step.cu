// Element-wise optimizer rules, fused and multi-tensor: every array is read once and written once. All loads of a
// thread are under way before the first is used; the factor of the gradients and the flag of failures are read on the
// GPU, so that a step waits for nothing.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/multi_tensor.cuh"
#include "llmeff/update_rules.h"

namespace llmeff::cuda {
namespace {

// Tiles of a thread: with few arrays one has too little under way.
template <class Rule>
constexpr int kTiles = Rule::kStates == 0 ? 2 : 1;

struct ScalarMath {
  static __device__ __forceinline__ float sqrt(float x) { return ::sqrtf(x); }
  static __device__ __forceinline__ double sqrt(double x) { return ::sqrt(x); }
};

// Arrays of the table: the parameter, its states, the gradient and the copy.
template <class Rule, class T, class G>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 8 ? 3 : 4)
    optimizer_kernel(const __grid_constant__ TensorTable<Rule::kStates + 3> table, const Rule rule, DType copy_dtype,
                     const __grid_constant__ StepGuard guard) {
  constexpr int kUpdated = 1 + Rule::kStates, kGrad = kUpdated, kCopy = kUpdated + 1;
  const int tensor = table.tensor_of(blockIdx.x);
  const int64_t n = table.size[tensor], chunk = blockIdx.x - table.first_chunk[tensor],
                begin = chunk * (kTiles<Rule> * kTile) + 4 * threadIdx.x;
  const bool aligned = table.aligned[tensor];
  T x[kTiles<Rule>][kUpdated][4], g[kTiles<Rule>][4];
#pragma unroll
  for (int t = 0; t < kTiles<Rule>; ++t) {
    const int64_t j = begin + t * kTile;
#pragma unroll
    for (int k = 0; k < kUpdated; ++k) load_four(table.template at<const T>(k, tensor), j, n, aligned, x[t][k]);
    load_four(table.template at<const G>(kGrad, tensor), j, n, aligned, g[t]);
  }
  double factor;
  if (!guard.open(factor)) return;
  const T scale = static_cast<T>(factor);
#pragma unroll
  for (int t = 0; t < kTiles<Rule>; ++t) {
    const int64_t j = begin + t * kTile;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      T element[kUpdated];
#pragma unroll
      for (int k = 0; k < kUpdated; ++k) element[k] = x[t][k][e];
      rule.template update<ScalarMath>(element, g[t][e] * scale);
#pragma unroll
      for (int k = 0; k < kUpdated; ++k) x[t][k][e] = element[k];
    }
#pragma unroll
    for (int k = 0; k < kUpdated; ++k) store_four(table.template at<T>(k, tensor), j, n, aligned, x[t][k]);
    store_copy(table.template at<void>(kCopy, tensor), copy_dtype, j, n, aligned, x[t][0]);
  }
}

}  // namespace

void CudaKernels::optimizer_step(UpdateRule rule, const List<InOut>& params, const List<InOut>& copies,
                                 const List<In>& grads, const List<InOut>& states, const List<double>& factors,
                                 const In& grad_scale) {
  if (params.size == 0) return;
  const StepGuard guard = step_guard(cuda_, grad_scale);
  const auto run = [&]<class T>(T) {
    rules::with_rule<T>(rule, factors, [&]<class Rule>(const Rule& made) {
      rules::check_lists(Rule::kStates, params, copies, grads, states);
      with_gradients<T>(grads[0].dtype, [&]<class GradTag>(GradTag) {
        TensorTable<Rule::kStates + 3> table;
        for (int64_t i = 0; i < params.size; ++i) {
          const View* arrays[Rule::kStates + 3] = {&params[i]};
          for (int k = 0; k < Rule::kStates; ++k) arrays[1 + k] = &rules::state_of(states, params.size, k, i);
          arrays[Rule::kStates + 1] = &grads[i];
          arrays[Rule::kStates + 2] = optional_view(copies, i);
          table.add(params[i].size(), kTiles<Rule> * kTile, arrays);
          if (!table.full() && i + 1 < params.size) continue;
          optimizer_kernel<Rule, T, typename GradTag::type><<<table.chunks(), kTileThreads, 0, cuda_.stream>>>(
              table, made, copies.size > 0 ? copies[0].dtype : DType::kF32, guard);
          LLMEFF_LAUNCHED("optimizer_kernel");
          table.clear();
        }
      });
    });
  };
  if (params[0].dtype == DType::kF64)
    run(double{});
  else
    run(float{});
}

}  // namespace llmeff::cuda
