// What the two paths of SONew share on the GPU: the constants of a step, chains, and what grafting scales to. See
// sonew.cu for the method.
#pragma once

#include <cmath>

#include "cuda/kernels/multi_tensor.cuh"

namespace llmeff::cuda::sonew {

inline constexpr int kMostBand = 10;

// Arrays of a tensor; diagonal k of its statistics is kDiagonal + k.
enum Array { kParam, kCopy, kGrad, kFirst, kRms, kDiagonal };

// What changes from step to step.
template <class W>
struct StepScalars {
  W delta, relative_floor, gamma_floor, reference_m, reference_root, keep;
  double lr, update_scale;  // update_scale: what bias correction multiplies u by
  uint64_t step;
};

template <class W>
struct Factors {
  StepScalars<W> now;
  W beta1, one_minus_beta1, beta2, one_minus_beta2, relative_eps, gamma, reference_eps;
  W pivot_floor;  // a pivot of at most this part of its diagonal may be rounding alone
  Graft graft;
  uint64_t seed;  // of what rounds bfloat16 state
  DType copy;
};

// The arguments of a step that are lists. h: the diagonals, h[k·params.size + i].
struct Lists {
  const List<InOut>&params, &copies;
  const List<In>& grads;
  const List<InOut>&m, &h, &rms;
  const List<int64_t>&chain_length, &rounding_ids;

  int64_t band() const { return h.size / params.size - 1; }
  int64_t chain(int64_t i) const { return chain_length[i] > 0 ? chain_length[i] : params[i].size(); }

  template <class Table>
  void add_to(Table& table, int64_t i, int chunk) const {
    const int at = table.count;
    table.add(params[i].size(), chunk, {&params[i], optional_view(copies, i), &grads[i], &m[i], optional_view(rms, i)});
    for (int64_t k = 0; k <= band(); ++k) {
      void* const diagonal = h[k * params.size + i].data;
      table.array[kDiagonal + k][at] = diagonal;
      if (reinterpret_cast<uintptr_t>(diagonal) % 16 != 0) table.aligned[at] = false;
    }
  }
};

// What a chain is cut at, of each tensor of a launch, where its chains' largest row sums are (with relative eps), and
// what tells its random numbers from those of other tensors (with bfloat16 state).
template <int kMost>
struct Chains {
  int64_t length[kMost];
  int64_t first[kMost];
  int64_t rounding_id[kMost];
};

// What a launch has beside its table.
template <class W>
struct Pass {
  const void* borders;
  W* row_max;                  // [chain], with relative eps
  const double* grad_squares;  // [tensor], with Graft::kRmspropNorm
  W* update;                   // [elements of the group]; null: u is applied
  double* partial;             // [chunk][2]: Σ reference², Σ u²
  double* dropped;             // []
  int first_chunk;             // of the group
};

#ifdef __CUDACC__

// One fused multiply-add, wherever it is compiled: blocks and borders must agree to the bit.
template <class W>
__device__ __forceinline__ W advance(W old, W sample, W beta, W rest) {
  return fma(old, beta, sample * rest);
}

// Elements until the end of the chain that holds element j, 0 for its last.
__device__ __forceinline__ int64_t to_chain_end(int64_t j, int64_t n, int64_t chain) {
  if (chain >= n) return n - 1 - j;
  const int64_t in_chain = n <= INT32_MAX ? static_cast<int32_t>(j) % static_cast<int32_t>(chain) : j % chain;
  const int64_t rest = chain - 1 - in_chain;
  return rest < n - 1 - j ? rest : n - 1 - j;
}

// A maximum does not depend on who comes first, and numbers ≥ 0 are in the order of their bits.
__device__ __forceinline__ void raise_to(float* target, float value) {
  atomicMax(reinterpret_cast<unsigned int*>(target), __float_as_uint(value));
}
__device__ __forceinline__ void raise_to(double* target, double value) {
  atomicMax(reinterpret_cast<unsigned long long*>(target),
            static_cast<unsigned long long>(__double_as_longlong(value)));
}

template <class W>
__device__ __forceinline__ W relative_delta(const Factors<W>& f, W row_max) {
  const W delta = f.relative_eps * row_max;
  return delta > f.now.relative_floor ? delta : f.now.relative_floor;
}

// What the update is scaled to, from the new state.
__device__ __forceinline__ bool is_adam(Graft graft) {
  return graft == Graft::kAdam || graft == Graft::kAdamRaw;
}
template <class W>
__device__ __forceinline__ W adam_reference(const Factors<W>& f, W m, W h0) {
  return m * f.now.reference_m / (sqrt(h0) * f.now.reference_root + f.reference_eps);
}
template <class W>
__device__ __forceinline__ W reference(const Factors<W>& f, W g, W m, W h0, W rms, W unit) {
  switch (f.graft) {
    case Graft::kAdam:
    case Graft::kAdamRaw:
      return adam_reference(f, m, h0);
    case Graft::kSgd:
      return g;
    case Graft::kMomentum:
      return m * f.now.reference_m;
    default:
      return unit / (sqrt(rms) + f.reference_eps);
  }
}

#endif

}  // namespace llmeff::cuda::sonew
