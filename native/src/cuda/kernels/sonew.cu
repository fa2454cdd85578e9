// Tridiagonal SONew (arXiv:2311.10085), fused and multi-tensor. Per chain, with H the running second moment restricted
// to the diagonal h0 and the super-diagonal h1, u = L·D·Lᵀ·m where X = L·D·Lᵀ is the LogDet-nearest preconditioner:
//
//   m ← β1·m + (1−β1)·g     h0_j ← β2·h0_j + (1−β2)·g_j²     h1_j ← β2·h1_j + (1−β2)·g_j·g_{j+1}
//   a = h0 + δ    ψ_j = h1_j / a_{j+1}    S_j = a_j − ψ_j·h1_j    (S_j ≤ γ·a_j: ψ_j = 0, S_j = a_j)
//   z_j = (m_j − ψ_j·m_{j+1}) / S_j       u_j = z_j − ψ_{j−1}·z_{j−1}
//   p_j ← p_j − lr·(scale·u_j + weight_decay·p_j)
//
// Bias correction multiplies δ (and an absolute γ) by 1−β2ᵗ and u by (1−β2ᵗ)/(1−β1ᵗ) instead of dividing the arrays. At
// the end of a chain h1 is kept 0.
//
// A chunk needs the new m and h0 of the element after it and the new m, h0, h1 of the one before, while other blocks
// overwrite the old ones in place. So a small kernel first makes the new values on both sides of every border between
// chunks (Border). Inside a chunk neighbours are exchanged by warp shuffles and a word of shared memory for each warp.
//
// Without a graft that is one pass over memory, 36 bytes a float32 parameter. A graft scales u by a quotient of norms
// over the whole tensor, known only after the pass: it leaves u in scratch memory, and a second kernel reads u and
// updates p, 44 bytes. Tensors are taken in groups of about kGroup elements, so that the scratch memory stays bounded
// and u of small tensors is still in the L2 cache, which is also where the next group overwrites it.
//
// Sums run over chunks, then over the chunks of a tensor in order: bits do not depend on how blocks are scheduled.
#include <cmath>

#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/multi_tensor.cuh"
#include "cuda/kernels/sum_of_squares.h"

namespace llmeff::cuda {
namespace {

constexpr int kTiles = 2, kChunk = kTiles * kTile, kWarps = kTileThreads / 32;
constexpr int64_t kGroup = int64_t{1} << 26;
// What the registers leave room for: it takes this many to have enough loads under way.
template <class T>
constexpr int kBlocksPerMultiprocessor = sizeof(T) > 4 ? 1 : 3;

enum Array { kParam, kCopy, kGrad, kFirst, kDiagonal, kEdge, kRms, kArrays };

template <class W>
struct Factors {
  W beta1, one_minus_beta1, beta2, one_minus_beta2, delta, relative_eps, relative_floor, gamma, gamma_floor;
  W reference_m, reference_root, reference_eps, keep;
  double lr, update_scale;  // update_scale: what bias correction multiplies u by
  Graft graft;
  DType copy;
};

// What a chain is cut at, of each tensor of a launch; with relative eps also where its chains' largest row sums are.
struct Chains {
  int64_t length[kMostTensors];
  int64_t first[kMostTensors];
};

// The new state on both sides of the border before element j of a tensor.
template <class W>
struct Border {
  W before_m, before_h0, before_h1, after_m, after_h0;
};

template <class W>
__device__ __forceinline__ W average(W old, W sample, W beta, W rest) {
  return old * beta + sample * rest;
}

// Elements until the end of the chain that holds element j, 0 for its last.
__device__ __forceinline__ int64_t to_chain_end(int64_t j, int64_t n, int64_t chain) {
  if (chain >= n) return n - 1 - j;
  const int64_t in_chain = n <= INT32_MAX ? static_cast<int32_t>(j) % static_cast<int32_t>(chain) : j % chain;
  const int64_t rest = chain - 1 - in_chain;
  return rest < n - 1 - j ? rest : n - 1 - j;
}

template <class T, class G>
__global__ void sonew_borders_kernel(const __grid_constant__ TensorTable<kArrays> table,
                                     const __grid_constant__ Chains chains, Factors<wide_t<T>> f,
                                     const __grid_constant__ StepGuard guard, Border<wide_t<T>>* borders) {
  using W = wide_t<T>;
  const int chunk = blockIdx.x * blockDim.x + threadIdx.x;
  if (chunk >= table.first_chunk[table.count]) return;
  const int tensor = table.tensor_of(chunk);
  const int64_t j = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk, n = table.size[tensor];
  double factor;
  if (j == 0 || !guard.open(factor)) return;
  const W scale = static_cast<W>(factor);
  const auto at = [&](Array array, int64_t i) { return widen<W>(table.at<const T>(array, tensor)[i]); };
  const G* const grads = table.at<const G>(kGrad, tensor);
  const W left = widen<W>(grads[j - 1]) * scale, right = widen<W>(grads[j]) * scale;
  const bool joined = to_chain_end(j - 1, n, chains.length[tensor]) > 0;
  borders[chunk] = {average(at(kFirst, j - 1), left, f.beta1, f.one_minus_beta1),
                    average(at(kDiagonal, j - 1), left * left, f.beta2, f.one_minus_beta2),
                    average(at(kEdge, j - 1), joined ? left * right : W{0}, f.beta2, f.one_minus_beta2),
                    average(at(kFirst, j), right, f.beta1, f.one_minus_beta1),
                    average(at(kDiagonal, j), right * right, f.beta2, f.one_minus_beta2)};
}

// The largest row sum |h1_{j−1}| + h0_j + |h1_j| of the new state in each chain; a maximum does not depend on who comes
// first, and numbers ≥ 0 are in the order of their bits.
__device__ __forceinline__ void raise_to(float* target, float value) {
  atomicMax(reinterpret_cast<unsigned int*>(target), __float_as_uint(value));
}
__device__ __forceinline__ void raise_to(double* target, double value) {
  atomicMax(reinterpret_cast<unsigned long long*>(target),
            static_cast<unsigned long long>(__double_as_longlong(value)));
}

template <class T, class G>
__global__ void __launch_bounds__(kTileThreads)
    sonew_row_max_kernel(const __grid_constant__ TensorTable<kArrays> table, const __grid_constant__ Chains chains,
                         Factors<wide_t<T>> f, const __grid_constant__ StepGuard guard, wide_t<T>* row_max) {
  using W = wide_t<T>;
  const int tensor = table.tensor_of(blockIdx.x);
  const int64_t n = table.size[tensor], chain = chains.length[tensor];
  double factor;
  if (!guard.open(factor)) return;
  const W scale = static_cast<W>(factor);
  const G* const g = table.at<const G>(kGrad, tensor);
  const T *const h0 = table.at<const T>(kDiagonal, tensor), *const h1 = table.at<const T>(kEdge, tensor);
  const bool aligned = table.aligned[tensor];
  const int lane = threadIdx.x % 32;
  const int64_t begin = static_cast<int64_t>(blockIdx.x - table.first_chunk[tensor]) * kChunk;
  W* const maxima = row_max + chains.first[tensor];
  W largest = 0;  // of the chain `current`
  int64_t current = chain >= n ? 0 : begin / chain;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
    W grads[4], diagonal[4], edges[4];
    load_four(g, j, n, aligned, grads);
    load_four(h0, j, n, aligned, diagonal);
    load_four(h1, j, n, aligned, edges);
    W following = __shfl_down_sync(0xFFFFFFFFu, grads[0], 1);
    if (lane == 31) following = j + 4 < n ? widen<W>(g[j + 4]) : W{0};
    int64_t left = j < n ? to_chain_end(j, n, chain) : 0, index = chain >= n || j >= n ? 0 : j / chain;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const W grad = grads[e] * scale, next = (e < 3 ? grads[e < 3 ? e + 1 : 3] : following) * scale;
      edges[e] = left > 0 ? abs(average(edges[e], grad * next, f.beta2, f.one_minus_beta2)) : W{0};
      diagonal[e] = average(diagonal[e], grad * grad, f.beta2, f.one_minus_beta2);
      left = left > 0 ? left - 1 : chain - 1;
    }
    W previous = __shfl_up_sync(0xFFFFFFFFu, edges[3], 1);
    if (lane == 0) {
      const bool joined = j > 0 && j < n && to_chain_end(j - 1, n, chain) > 0;
      previous = joined ? abs(average(widen<W>(h1[j - 1]), widen<W>(g[j - 1]) * scale * (grads[0] * scale), f.beta2,
                                      f.one_minus_beta2))
                        : W{0};
    }
    left = j < n ? to_chain_end(j, n, chain) : 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (j + e >= n) continue;
      if (index != current) {
        raise_to(maxima + current, largest);
        current = index;
        largest = 0;
      }
      const W sum = previous + diagonal[e] + edges[e];
      largest = largest < sum ? sum : largest;
      previous = edges[e];
      if (left-- > 0) continue;
      ++index;
      left = chain - 1;
    }
  }
  if (!__all_sync(0xFFFFFFFFu, current == __shfl_sync(0xFFFFFFFFu, current, 0)))
    return raise_to(maxima + current, largest);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const W other = __shfl_xor_sync(0xFFFFFFFFu, largest, distance);
    if (largest < other) largest = other;
  }
  if (lane == 0) raise_to(maxima + current, largest);
}

// z and ψ·z of an element, from the new state of it and the one after.
template <class W>
struct Factored {
  W z, psi_z;
  bool dropped;
};
template <class W>
__device__ __forceinline__ Factored<W> factor(const Factors<W>& f, W m, W h0, W h1, W next_m, W next_h0, W delta,
                                              bool joined) {
  const W a = h0 + delta;
  W psi = joined ? h1 / (next_h0 + delta) : W{0};
  W s = fma(-psi, h1, a);  // nearly all of it cancels for the rank-one statistics of a first step
  const bool dropped = s <= a * f.gamma + f.gamma_floor;
  if (dropped) psi = 0, s = a;
  const W z = (m - psi * next_m) / s;
  return {z, psi * z, dropped};
}

// What the update is scaled to, from the new state.
template <class W>
__device__ __forceinline__ W reference(const Factors<W>& f, W g, W m, W h0, W rms, W unit) {
  switch (f.graft) {
    case Graft::kAdam:
    case Graft::kAdamRaw:
      return m * f.reference_m / (sqrt(h0) * f.reference_root + f.reference_eps);
    case Graft::kSgd:
      return g;
    case Graft::kMomentum:
      return m * f.reference_m;
    default:
      return unit / (sqrt(rms) + f.reference_eps);
  }
}

template <class W>
struct Pass {
  const Border<W>* borders;
  const W* row_max;            // [chain], with relative eps
  const double* grad_squares;  // [tensor], with Graft::kRmspropNorm
  W* update;                   // [elements of the group]
  double* partial;             // [chunk][2]
  double* dropped;             // []
  int first_chunk;             // of the group
};

template <class T, class G, bool kApply, bool kRelative>
__global__ void __launch_bounds__(kTileThreads, kBlocksPerMultiprocessor<T>)
    sonew_kernel(const __grid_constant__ TensorTable<kArrays> table, const __grid_constant__ Chains chains,
                 const __grid_constant__ Factors<wide_t<T>> f, const __grid_constant__ StepGuard guard,
                 Pass<wide_t<T>> pass) {
  using W = wide_t<T>;
  const int chunk = pass.first_chunk + blockIdx.x, tensor = table.tensor_of(chunk);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t n = table.size[tensor], chain = chains.length[tensor],
                begin = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk;
  const bool aligned = table.aligned[tensor];
  T *const firsts = table.at<T>(kFirst, tensor), *const diagonals = table.at<T>(kDiagonal, tensor),
           *const edges = table.at<T>(kEdge, tensor);
  const G* const grads = table.at<const G>(kGrad, tensor);

  W g[kTiles][4], m[kTiles][4], h0[kTiles][4], h1[kTiles][4], next_g[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
    load_four(grads, j, n, aligned, g[t]);
    load_four(firsts, j, n, aligned, m[t]);
    load_four(diagonals, j, n, aligned, h0[t]);
    load_four(edges, j, n, aligned, h1[t]);
    next_g[t] = lane == 31 && j + 4 < n ? widen<W>(grads[j + 4]) : W{0};
  }
  const Border<W> before = begin > 0 && threadIdx.x == 0 ? pass.borders[chunk] : Border<W>{};
  const Border<W> after = begin + kChunk < n && threadIdx.x == kTileThreads - 1 ? pass.borders[chunk + 1] : Border<W>{};
  double scale_of_grads;
  if (!guard.open(scale_of_grads)) return;
  const W scale = static_cast<W>(scale_of_grads);

  // The new state, and Σ reference².
  double sums[2] = {};           // of the reference, of the update
  unsigned joined[kTiles] = {};  // bit e: element e and the one after are of one chain
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
#pragma unroll
    for (int e = 0; e < 4; ++e) g[t][e] *= scale;
    const W from_next = __shfl_down_sync(0xFFFFFFFFu, g[t][0], 1);
    const W after_last = lane == 31 ? next_g[t] * scale : from_next;
    int64_t left = j < n ? to_chain_end(j, n, chain) : 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool edge = left > 0 && j + e + 1 < n;
      if (edge) joined[t] |= 1u << e;
      left = left > 0 ? left - 1 : chain - 1;
      const W grad = g[t][e], following = e < 3 ? g[t][e < 3 ? e + 1 : 3] : after_last;
      m[t][e] = average(m[t][e], grad, f.beta1, f.one_minus_beta1);
      h0[t][e] = average(h0[t][e], grad * grad, f.beta2, f.one_minus_beta2);
      h1[t][e] = average(h1[t][e], edge ? grad * following : W{0}, f.beta2, f.one_minus_beta2);
    }
    store_four(firsts, j, n, aligned, m[t]);
    store_four(diagonals, j, n, aligned, h0[t]);
    store_four(edges, j, n, aligned, h1[t]);
    if constexpr (!kApply) {
      W rms[4] = {}, unit_grad = 0;
      if (f.graft == Graft::kRmspropNorm) {
        T* const averages = table.at<T>(kRms, tensor);
        unit_grad = static_cast<W>(1.0 / (sqrt(pass.grad_squares[tensor]) + 1e-16));
        load_four(averages, j, n, aligned, rms);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const W unit = g[t][e] * unit_grad;
          rms[e] = average(rms[e], unit * unit, f.beta2, f.one_minus_beta2);
        }
        store_four(averages, j, n, aligned, rms);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (j + e >= n) continue;
        const double r = static_cast<double>(reference(f, g[t][e], m[t][e], h0[t][e], rms[e], g[t][e] * unit_grad));
        sums[0] += r * r;
      }
    }
  }

  // The element after a warp's last is that of the next warp, of the next tile, or of the next chunk.
  __shared__ W first_m[kTiles * kWarps + 1], first_h0[kTiles * kWarps + 1], last_psi_z[kTiles * kWarps + 1];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    if (lane == 0) {
      first_m[t * kWarps + warp] = m[t][0];
      first_h0[t * kWarps + warp] = h0[t][0];
    }
  }
  if (threadIdx.x == kTileThreads - 1) {
    first_m[kTiles * kWarps] = after.after_m;
    first_h0[kTiles * kWarps] = after.after_h0;
  }
  const auto delta_of = [&](int64_t index) {  // of a chain
    const W delta = f.relative_eps * pass.row_max[chains.first[tensor] + index];
    return delta > f.relative_floor ? delta : f.relative_floor;
  };
  __syncthreads();

  Factored<W> factored[kTiles][4];
  int dropped = 0;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
    int64_t index = 0;  // of the chain, with relative eps
    W delta = f.delta;
    if (kRelative) {
      index = chain >= n || j >= n ? 0 : j / chain;
      delta = delta_of(index);
    }
    W next_m = __shfl_down_sync(0xFFFFFFFFu, m[t][0], 1), next_h0 = __shfl_down_sync(0xFFFFFFFFu, h0[t][0], 1);
    if (lane == 31) {
      next_m = first_m[t * kWarps + warp + 1];
      next_h0 = first_h0[t * kWarps + warp + 1];
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (e > 0 && kRelative && (joined[t] >> (e - 1) & 1) == 0 && j + e < n) delta = delta_of(++index);
      factored[t][e] = factor(f, m[t][e], h0[t][e], h1[t][e], e < 3 ? m[t][e < 3 ? e + 1 : 3] : next_m,
                              e < 3 ? h0[t][e < 3 ? e + 1 : 3] : next_h0, delta, (joined[t] >> e & 1) != 0);
      dropped += factored[t][e].dropped && j + e < n;
    }
    if (lane == 31) last_psi_z[t * kWarps + warp + 1] = factored[t][3].psi_z;
  }
  if (threadIdx.x == 0) {
    last_psi_z[0] = 0;
    if (begin > 0)
      last_psi_z[0] = factor(f, before.before_m, before.before_h0, before.before_h1, before.after_m, before.after_h0,
                             !kRelative ? f.delta : delta_of(chain >= n ? 0 : (begin - 1) / chain),
                             to_chain_end(begin - 1, n, chain) > 0)
                          .psi_z;
  }
  __syncthreads();

#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
    W previous = __shfl_up_sync(0xFFFFFFFFu, factored[t][3].psi_z, 1);
    if (lane == 0) previous = last_psi_z[t * kWarps + warp];
    W u[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      u[e] = factored[t][e].z - previous;
      previous = factored[t][e].psi_z;
    }
    if constexpr (kApply) {
      T* const params = table.at<T>(kParam, tensor);
      const W rate = static_cast<W>(f.lr * f.update_scale);
      W p[4];
      load_four(params, j, n, aligned, p);
#pragma unroll
      for (int e = 0; e < 4; ++e) p[e] = p[e] * f.keep - u[e] * rate;
      store_four(params, j, n, aligned, p);
      store_copy(table.at<void>(kCopy, tensor), f.copy, j, n, aligned, p);
    } else {
      // Chunks of the scratch array are padded to full length.
      if (j < n)
        store_group(pass.update + static_cast<int64_t>(blockIdx.x) * kChunk + t * kTile + 4 * threadIdx.x,
                    Group<W, 4>{u[0], u[1], u[2], u[3]});
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (j + e < n) sums[1] += static_cast<double>(u[e]) * static_cast<double>(u[e]);
    }
  }

  if (pass.dropped != nullptr) {
    dropped = __syncthreads_count(dropped > 0) == 0 ? 0 : __reduce_add_sync(0xFFFFFFFFu, dropped);
    if (lane == 0 && dropped > 0) atomicAdd(pass.dropped, static_cast<double>(dropped));  // exact in any order
  }
  if constexpr (!kApply) {
    block_sums(sums);
    if (threadIdx.x == 0) reinterpret_cast<double2*>(pass.partial)[chunk] = {sums[0], sums[1]};
  }
}

// What u is multiplied by, of each tensor of a group: a block for each.
__global__ void __launch_bounds__(1024)
    sonew_rates_kernel(const __grid_constant__ TensorTable<kArrays> table, int first_tensor, const double* partial,
                       double lr, double* rates) {
  const int tensor = first_tensor + blockIdx.x;
  double sums[2];
  sum_partials(partial, table.first_chunk[tensor], table.first_chunk[tensor + 1], sums);
  if (threadIdx.x > 0) return;
  const double norm = sqrt(sums[1]);
  rates[tensor] = norm == 0 ? 0.0 : lr * sqrt(sums[0]) / norm;
}

// p ← keep·p − rate·u, chunk by chunk from the last to the first: what the pass before wrote last is still in the
// cache.
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    sonew_apply_kernel(const __grid_constant__ TensorTable<kArrays> table, wide_t<T> keep, DType copy,
                       const __grid_constant__ StepGuard guard, int first_chunk, const wide_t<T>* update,
                       const double* rates) {
  using W = wide_t<T>;
  const int in_group = gridDim.x - 1 - blockIdx.x, chunk = first_chunk + in_group, tensor = table.tensor_of(chunk);
  const int64_t n = table.size[tensor],
                begin = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk + 4 * threadIdx.x;
  const bool aligned = table.aligned[tensor];
  T* const params = table.at<T>(kParam, tensor);
  W p[kTiles][4];
  Group<W, 4> u[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    load_four(params, begin + t * kTile, n, aligned, p[t]);
    u[t] = load_group<4>(update + static_cast<int64_t>(in_group) * kChunk + t * kTile + 4 * threadIdx.x);
  }
  const W rate = static_cast<W>(rates[tensor]);
  double factor;
  if (!guard.open(factor)) return;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) p[t][e] = p[t][e] * keep - u[t].at[e] * rate;
    store_four(params, begin + t * kTile, n, aligned, p[t]);
    store_copy(table.at<void>(kCopy, tensor), copy, begin + t * kTile, n, aligned, p[t]);
  }
}

// The arguments of a step that are lists.
struct Lists {
  const List<InOut>& params;
  const List<InOut>& copies;
  const List<In>& grads;
  const List<InOut>&m, &h0, &h1, &rms;
  const List<int64_t>& chain_length;
};

// Tensors [from, to), at most kMostTensors.
template <class T, class G>
void step_table(Context& cuda, const Lists& lists, int64_t from, int64_t to, const Factors<wide_t<T>>& f,
                bool relative_eps, const In& grad_scale, const InOut& dropped, wide_t<T>* update) {
  using W = wide_t<T>;
  TensorTable<kArrays> table;
  Chains chains;
  int64_t all_chains = 0;
  for (int64_t i = from; i < to; ++i) {
    const int64_t n = lists.params[i].size(), chain = lists.chain_length[i] > 0 ? lists.chain_length[i] : n;
    chains.length[i - from] = chain;
    chains.first[i - from] = all_chains;
    all_chains += ceil_div(n, chain);
    table.add(n, kChunk,
              {&lists.params[i], optional_view(lists.copies, i), &lists.grads[i], &lists.m[i], &lists.h0[i],
               &lists.h1[i], optional_view(lists.rms, i)});
  }
  const StepGuard guard = step_guard(cuda, grad_scale);
  Pass<W> pass = {};
  pass.dropped = dropped.as<double>();
  if (f.graft == Graft::kRmspropNorm) {
    double* const squares = cuda.scratch<double>(table.count);
    sums_of_squares(cuda, {lists.grads.items + from, to - from}, grad_scale, squares);
    pass.grad_squares = squares;
  }
  if (relative_eps) {
    W* const row_max = cuda.scratch<W>(all_chains);
    LLMEFF_CUDA(cudaMemsetAsync(row_max, 0, static_cast<size_t>(all_chains) * sizeof(W), cuda.stream));
    sonew_row_max_kernel<T, G><<<table.chunks(), kTileThreads, 0, cuda.stream>>>(table, chains, f, guard, row_max);
    LLMEFF_LAUNCHED("sonew_row_max_kernel");
    pass.row_max = row_max;
  }
  if (table.chunks() > table.count) {
    Border<W>* const borders = cuda.scratch<Border<W>>(table.chunks());
    sonew_borders_kernel<T, G>
        <<<ceil_div(table.chunks(), 128), 128, 0, cuda.stream>>>(table, chains, f, guard, borders);
    LLMEFF_LAUNCHED("sonew_borders_kernel");
    pass.borders = borders;
  }
  if (f.graft == Graft::kNone) {
    const auto kernel = relative_eps ? sonew_kernel<T, G, true, true> : sonew_kernel<T, G, true, false>;
    kernel<<<table.chunks(), kTileThreads, 0, cuda.stream>>>(table, chains, f, guard, pass);
    LLMEFF_LAUNCHED("sonew_kernel");
    return;
  }
  pass.partial = cuda.scratch<double>(2 * table.chunks());
  double* const rates = cuda.scratch<double>(table.count);
  // Groups end at kGroup elements.
  int ends[kMostTensors], groups = 0;
  for (int tensor = 0, first = 0; tensor < table.count; ++tensor) {
    const bool last = tensor + 1 == table.count;
    if (!last && int64_t{table.first_chunk[tensor + 2] - table.first_chunk[first]} * kChunk <= kGroup) continue;
    ends[groups++] = first = tensor + 1;
  }
  pass.update = update;
  for (int group = 0, first = 0; group < groups; first = ends[group++]) {
    const int chunks = table.first_chunk[ends[group]] - table.first_chunk[first];
    pass.first_chunk = table.first_chunk[first];
    const auto kernel = relative_eps ? sonew_kernel<T, G, false, true> : sonew_kernel<T, G, false, false>;
    kernel<<<chunks, kTileThreads, 0, cuda.stream>>>(table, chains, f, guard, pass);
    LLMEFF_LAUNCHED("sonew_kernel");
    sonew_rates_kernel<<<ends[group] - first, 1024, 0, cuda.stream>>>(table, first, pass.partial, f.lr, rates);
    LLMEFF_LAUNCHED("sonew_rates_kernel");
    sonew_apply_kernel<T>
        <<<chunks, kTileThreads, 0, cuda.stream>>>(table, f.keep, f.copy, guard, pass.first_chunk, pass.update, rates);
    LLMEFF_LAUNCHED("sonew_apply_kernel");
  }
}

}  // namespace

void CudaKernels::sonew_step(const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                             const List<InOut>& m, const List<InOut>& h0, const List<InOut>& h1, const List<InOut>& rms,
                             const List<int64_t>& chain_length, const In& grad_scale, double lr, double beta1,
                             double beta2, double eps, bool relative_eps, double gamma, bool absolute_gamma,
                             Graft graft, double graft_eps, bool bias_correction, double weight_decay, int64_t step,
                             const InOut& dropped) {
  if (params.size == 0) return;
  const double t = static_cast<double>(step);
  const double c1 = bias_correction ? 1.0 - std::pow(beta1, t) : 1.0,
               c2 = bias_correction ? 1.0 - std::pow(beta2, t) : 1.0;
  const Lists lists = {params, copies, grads, m, h0, h1, rms, chain_length};
  with_floating(params[0].dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    using W = wide_t<T>;
    const Factors<W> f = {.beta1 = static_cast<W>(beta1),
                          .one_minus_beta1 = static_cast<W>(1.0 - beta1),
                          .beta2 = static_cast<W>(beta2),
                          .one_minus_beta2 = static_cast<W>(1.0 - beta2),
                          .delta = static_cast<W>(eps * c2),
                          .relative_eps = static_cast<W>(eps),
                          .relative_floor = static_cast<W>(1e-24 * c2),
                          .gamma = static_cast<W>(absolute_gamma ? 0.0 : gamma),
                          .gamma_floor = static_cast<W>(absolute_gamma ? gamma * c2 : 0.0),
                          .reference_m = static_cast<W>(1.0 / c1),
                          .reference_root = static_cast<W>(graft == Graft::kAdam ? 1.0 / std::sqrt(c2) : 1.0),
                          .reference_eps = static_cast<W>(graft_eps),
                          .keep = static_cast<W>(1.0 - lr * weight_decay),
                          .lr = lr,
                          .update_scale = c2 / c1,
                          .graft = graft,
                          .copy = copies.size > 0 ? copies[0].dtype : DType::kF32};

    // A group has up to kGroup elements, or one larger tensor.
    int64_t total = 0, most = kGroup / kChunk;
    for (int64_t i = 0; i < params.size; ++i) {
      total += ceil_div(params[i].size(), kChunk);
      most = std::max(most, ceil_div(params[i].size(), kChunk));
    }
    W* const update = graft == Graft::kNone ? nullptr : cuda_.scratch<W>(std::min(total, most) * kChunk);
    with_gradients<T>(grads[0].dtype, [&]<class GradTag>(GradTag) {
      for (int64_t from = 0; from < params.size; from += kMostTensors)
        step_table<T, typename GradTag::type>(cuda_, lists, from, std::min(params.size, from + kMostTensors), f,
                                              relative_eps, grad_scale, dropped, update);
    });
  });
}

}  // namespace llmeff::cuda
