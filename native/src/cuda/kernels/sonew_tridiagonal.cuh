// Tridiagonal SONew with the rule that drops edges forward: what most runs use. A thread has four neighbouring elements
// of each of two tiles, all in registers. T: of the parameters, S: of the state, G: of the gradients.
//
// A chunk needs the new m and h0 of the element after it and the new m, h0, h1 of the one before, while other blocks
// overwrite the old ones in place. So a small kernel first makes the new values on both sides of every border between
// chunks (Border). Inside a chunk neighbours are exchanged by warp shuffles and a word of shared memory for each warp.
#pragma once

#include "cuda/kernels/sonew_rounding.cuh"

namespace llmeff::cuda::sonew {
namespace tridiagonal {

constexpr int kTiles = 2, kChunk = kTiles * kTile, kWarps = kTileThreads / 32;
constexpr int kEdge = kDiagonal + 1, kArrays = kEdge + 1;
// What the registers leave room for: it takes this many to have enough loads under way.
template <class T>
constexpr int kBlocksPerMultiprocessor = sizeof(T) > 4 ? 1 : 3;

using Table = TensorTable<kArrays>;
using TableChains = Chains<Table::kCapacity>;

// The new state on both sides of the border before element j of a tensor.
template <class W>
struct Border {
  W before_m, before_h0, before_h1, after_m, after_h0;
};

template <class T, class S, class G>
__global__ void sonew_borders_kernel(const __grid_constant__ Table table, const __grid_constant__ TableChains chains,
                                     const __grid_constant__ Factors<wide_t<T>> f,
                                     const __grid_constant__ StepGuard guard, Border<wide_t<T>>* borders) {
  using W = wide_t<T>;
  const int chunk = blockIdx.x * blockDim.x + threadIdx.x;
  if (chunk >= table.first_chunk[table.count]) return;
  const int tensor = table.tensor_of(chunk);
  const int64_t j = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk, n = table.size[tensor];
  double factor;
  if (j == 0 || !guard.open(factor)) return;
  const W scale = static_cast<W>(factor);
  const G* const grads = table.at<const G>(kGrad, tensor);
  const W left = widen<W>(grads[j - 1]) * scale, right = widen<W>(grads[j]) * scale;
  const bool joined = to_chain_end(j - 1, n, chains.length[tensor]) > 0;
  const auto first = [&](int64_t i, W grad) {
    const W m = advance(widen<W>(table.at<const S>(kFirst, tensor)[i]), grad, f.beta1, f.one_minus_beta1);
    return rounded<S>(f, chains.rounding_id[tensor], 0, i, m);
  };
  const auto diagonal = [&](int k, int64_t i, W product) {
    const W h = advance(widen<W>(table.at<const S>(kDiagonal + k, tensor)[i]), product, f.beta2, f.one_minus_beta2);
    return rounded<S>(f, chains.rounding_id[tensor], 1 + k, i, h);
  };
  borders[chunk] = {first(j - 1, left), diagonal(0, j - 1, left * left),
                    diagonal(1, j - 1, joined ? left * right : W{0}), first(j, right), diagonal(0, j, right * right)};
}

// The largest row sum |h1_{j−1}| + h0_j + |h1_j| of the new state in each chain.
template <class T, class S, class G>
__global__ void __launch_bounds__(kTileThreads)
    sonew_row_max_kernel(const __grid_constant__ Table table, const __grid_constant__ TableChains chains,
                         const __grid_constant__ Factors<wide_t<T>> f, const __grid_constant__ StepGuard guard,
                         wide_t<T>* row_max) {
  using W = wide_t<T>;
  const int tensor = table.tensor_of(blockIdx.x);
  const int64_t n = table.size[tensor], chain = chains.length[tensor], id = chains.rounding_id[tensor];
  double factor;
  if (!guard.open(factor)) return;
  const W scale = static_cast<W>(factor);
  const G* const g = table.at<const G>(kGrad, tensor);
  const S *const h0 = table.at<const S>(kDiagonal, tensor), *const h1 = table.at<const S>(kEdge, tensor);
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
      edges[e] = left > 0 ? advance(edges[e], grad * next, f.beta2, f.one_minus_beta2) : W{0};
      diagonal[e] = advance(diagonal[e], grad * grad, f.beta2, f.one_minus_beta2);
      left = left > 0 ? left - 1 : chain - 1;
    }
    round_four<S>(f, id, 1, j, diagonal);
    round_four<S>(f, id, 2, j, edges);
#pragma unroll
    for (int e = 0; e < 4; ++e) edges[e] = abs(edges[e]);
    W previous = __shfl_up_sync(0xFFFFFFFFu, edges[3], 1);
    if (lane == 0) {
      const bool joined = j > 0 && j < n && to_chain_end(j - 1, n, chain) > 0;
      previous = joined ? abs(rounded<S>(f, id, 2, j - 1,
                                         advance(widen<W>(h1[j - 1]), widen<W>(g[j - 1]) * scale * (grads[0] * scale),
                                                 f.beta2, f.one_minus_beta2)))
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
  const bool dropped = s <= a * f.gamma + f.now.gamma_floor;
  if (dropped) psi = 0, s = a;
  const W z = (m - psi * next_m) / s;
  return {z, psi * z, dropped};
}

// The lowest of four bits.
__device__ __forceinline__ unsigned lowest_bits(int64_t count) {
  return count >= 4 ? 15u : count > 0 ? (1u << count) - 1u : 0u;
}
// Bit e: element j + e and the one after it are of one chain.
__device__ __forceinline__ unsigned joined_bits(int64_t j, int64_t n, int64_t chain) {
  if (chain >= n) return lowest_bits(n - 1 - j);
  unsigned bits = 0;
  int64_t left = j < n ? to_chain_end(j, n, chain) : 0;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    if (left > 0 && j + e + 1 < n) bits |= 1u << e;
    left = left > 0 ? left - 1 : chain - 1;
  }
  return bits;
}

// kInner: all elements of the chunk and the one after it are of one chain, and aligned, so that nothing is left to
// decide for each of them. Deciding takes as many instructions as the rest, more than memory leaves time for.
template <class T, class S, class G, bool kApply, bool kRelative, bool kInner>
__device__ __forceinline__ void step_chunk(const Table& table, const TableChains& chains, const Factors<wide_t<T>>& f,
                                           const StepGuard& guard, const Pass<wide_t<T>>& pass, int chunk, int tensor) {
  using W = wide_t<T>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t n = table.size[tensor], chain = chains.length[tensor], id = chains.rounding_id[tensor],
                begin = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk;
  const bool aligned = kInner || table.aligned[tensor];
  const auto load = [&](const auto* from, int64_t j, W(&x)[4]) {
    load_four(from, j, kInner ? INT64_MAX : n, aligned, x);
  };
  const auto store = [&](auto* to, int64_t j, const W(&x)[4]) {
    store_four(to, j, kInner ? INT64_MAX : n, aligned, x);
  };
  S *const firsts = table.at<S>(kFirst, tensor), *const diagonals = table.at<S>(kDiagonal, tensor),
           *const edges = table.at<S>(kEdge, tensor);
  const G* const grads = table.at<const G>(kGrad, tensor);

  W g[kTiles][4], m[kTiles][4], h0[kTiles][4], h1[kTiles][4], next_g[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
    load(grads, j, g[t]);
    load(firsts, j, m[t]);
    load(diagonals, j, h0[t]);
    load(edges, j, h1[t]);
    next_g[t] = lane == 31 && (kInner || j + 4 < n) ? widen<W>(grads[j + 4]) : W{0};
  }
  const Border<W>* const borders = static_cast<const Border<W>*>(pass.borders);
  const Border<W> before = begin > 0 && threadIdx.x == 0 ? borders[chunk] : Border<W>{};
  const Border<W> after =
      (kInner || begin + kChunk < n) && threadIdx.x == kTileThreads - 1 ? borders[chunk + 1] : Border<W>{};
  double scale_of_grads;
  if (!guard.open(scale_of_grads)) return;
  const W scale = static_cast<W>(scale_of_grads);

  // The new state, and Σ reference².
  double sums[2] = {};                      // of the reference, of the update
  unsigned inside[kTiles], joined[kTiles];  // bit e: there is element e; it and the one after are of one chain
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
    inside[t] = kInner ? 15u : lowest_bits(n - j);
    joined[t] = kInner ? 15u : joined_bits(j, n, chain);
#pragma unroll
    for (int e = 0; e < 4; ++e) g[t][e] *= scale;
    const W from_next = __shfl_down_sync(0xFFFFFFFFu, g[t][0], 1);
    const W after_last = lane == 31 ? next_g[t] * scale : from_next;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const W grad = g[t][e], following = e < 3 ? g[t][e < 3 ? e + 1 : 3] : after_last;
      const W product = (joined[t] >> e & 1) != 0 ? grad * following : W{0};
      m[t][e] = advance(m[t][e], grad, f.beta1, f.one_minus_beta1);
      h0[t][e] = advance(h0[t][e], grad * grad, f.beta2, f.one_minus_beta2);
      h1[t][e] = advance(h1[t][e], product, f.beta2, f.one_minus_beta2);
    }
    round_four<S>(f, id, 0, j, m[t]);
    round_four<S>(f, id, 1, j, h0[t]);
    round_four<S>(f, id, 2, j, h1[t]);
    store(firsts, j, m[t]);
    store(diagonals, j, h0[t]);
    store(edges, j, h1[t]);
    if constexpr (!kApply) {
      const auto add_squares = [&](const auto& reference_of) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if ((inside[t] >> e & 1) == 0) continue;
          const double r = static_cast<double>(reference_of(e));
          sums[0] += r * r;
        }
      };
      if (is_adam(f.graft)) {
        add_squares([&](int e) { return adam_reference(f, m[t][e], h0[t][e]); });
      } else {
        W rms[4] = {}, unit_grad = 0;
        if (f.graft == Graft::kRmspropNorm) {
          S* const averages = table.at<S>(kRms, tensor);
          unit_grad = static_cast<W>(1.0 / (sqrt(pass.grad_squares[tensor]) + 1e-16));
          load(averages, j, rms);
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const W unit = g[t][e] * unit_grad;
            rms[e] = advance(rms[e], unit * unit, f.beta2, f.one_minus_beta2);
          }
          round_four<S>(f, id, kArrayOfRms, j, rms);
          store(averages, j, rms);
        }
        add_squares([&](int e) { return reference(f, g[t][e], m[t][e], h0[t][e], rms[e], g[t][e] * unit_grad); });
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
    return relative_delta(f, pass.row_max[chains.first[tensor] + index]);
  };
  __syncthreads();

  W z[kTiles][4], psi_z[kTiles][4];
  int dropped = 0;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
    int64_t index = 0;  // of the chain, with relative eps
    W delta = f.now.delta;
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
      const Factored<W> factored = factor(f, m[t][e], h0[t][e], h1[t][e], e < 3 ? m[t][e < 3 ? e + 1 : 3] : next_m,
                                          e < 3 ? h0[t][e < 3 ? e + 1 : 3] : next_h0, delta, (joined[t] >> e & 1) != 0);
      z[t][e] = factored.z, psi_z[t][e] = factored.psi_z;
      dropped += factored.dropped && (inside[t] >> e & 1) != 0;
    }
    if (lane == 31) last_psi_z[t * kWarps + warp + 1] = psi_z[t][3];
  }
  if (threadIdx.x == 0) {
    last_psi_z[0] = 0;
    if (begin > 0)
      last_psi_z[0] = factor(f, before.before_m, before.before_h0, before.before_h1, before.after_m, before.after_h0,
                             !kRelative ? f.now.delta : delta_of(chain >= n ? 0 : (begin - 1) / chain),
                             to_chain_end(begin - 1, n, chain) > 0)
                          .psi_z;
  }
  const bool any_dropped = __syncthreads_or(dropped) != 0;

#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const int64_t j = begin + t * kTile + 4 * threadIdx.x;
    W previous = __shfl_up_sync(0xFFFFFFFFu, psi_z[t][3], 1);
    if (lane == 0) previous = last_psi_z[t * kWarps + warp];
    W u[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      u[e] = z[t][e] - previous;
      previous = psi_z[t][e];
    }
    if constexpr (kApply) {
      T* const params = table.at<T>(kParam, tensor);
      const W rate = static_cast<W>(f.now.lr * f.now.update_scale);
      W p[4];
      load(params, j, p);
#pragma unroll
      for (int e = 0; e < 4; ++e) p[e] = p[e] * f.now.keep - u[e] * rate;
      store(params, j, p);
      store_copy(table.at<void>(kCopy, tensor), f.copy, j, n, aligned, p);
    } else {
      // Chunks of the scratch array are padded to full length.
      if (kInner || j < n)
        store_group(pass.update + static_cast<int64_t>(blockIdx.x) * kChunk + t * kTile + 4 * threadIdx.x,
                    Group<W, 4>{u[0], u[1], u[2], u[3]});
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if ((inside[t] >> e & 1) != 0) sums[1] += static_cast<double>(u[e]) * static_cast<double>(u[e]);
    }
  }

  if (pass.dropped != nullptr && any_dropped) {
    dropped = __reduce_add_sync(0xFFFFFFFFu, dropped);
    if (lane == 0 && dropped > 0) atomicAdd(pass.dropped, static_cast<double>(dropped));  // exact in any order
  }
  if constexpr (!kApply) {
    block_sums(sums);
    if (threadIdx.x == 0) reinterpret_cast<double2*>(pass.partial)[chunk] = {sums[0], sums[1]};
  }
}

template <class T, class S, class G, bool kApply, bool kRelative>
__global__ void __launch_bounds__(kTileThreads, kBlocksPerMultiprocessor<T>)
    sonew_kernel(const __grid_constant__ Table table, const __grid_constant__ TableChains chains,
                 const __grid_constant__ Factors<wide_t<T>> f, const __grid_constant__ StepGuard guard,
                 const __grid_constant__ Pass<wide_t<T>> pass) {
  const int chunk = pass.first_chunk + blockIdx.x, tensor = table.tensor_of(chunk);
  const int64_t n = table.size[tensor], end = static_cast<int64_t>(chunk + 1 - table.first_chunk[tensor]) * kChunk;
  if (!kRelative && end < n && chains.length[tensor] >= n && table.aligned[tensor])
    step_chunk<T, S, G, kApply, kRelative, true>(table, chains, f, guard, pass, chunk, tensor);
  else
    step_chunk<T, S, G, kApply, kRelative, false>(table, chains, f, guard, pass, chunk, tensor);
}

}  // namespace tridiagonal

// The launches of a step, from the pass over what a path needs of the whole chain on.
template <class T, class S, class G>
struct Tridiagonal {
  using W = wide_t<T>;
  using Table = tridiagonal::Table;
  using TableChains = tridiagonal::TableChains;
  static constexpr int kChunk = tridiagonal::kChunk;

  static void prepare(Context& cuda, const Table& table, const TableChains& chains, const Factors<W>& f,
                      const StepGuard& guard, Pass<W>& pass) {
    using namespace tridiagonal;
    if (pass.row_max != nullptr) {
      sonew_row_max_kernel<T, S, G>
          <<<table.chunks(), kTileThreads, 0, cuda.stream>>>(table, chains, f, guard, pass.row_max);
      LLMEFF_LAUNCHED("sonew_row_max_kernel");
    }
    if (table.chunks() == table.count) return;
    Border<W>* const borders = cuda.scratch<Border<W>>(table.chunks());
    sonew_borders_kernel<T, S, G>
        <<<ceil_div(table.chunks(), 128), 128, 0, cuda.stream>>>(table, chains, f, guard, borders);
    LLMEFF_LAUNCHED("sonew_borders_kernel");
    pass.borders = borders;
  }
  static void step(Context& cuda, const Table& table, const TableChains& chains, const Factors<W>& f,
                   const StepGuard& guard, const Pass<W>& pass, int chunks) {
    using namespace tridiagonal;
    const bool relative = pass.row_max != nullptr;
    const auto kernel = pass.update == nullptr
                            ? (relative ? sonew_kernel<T, S, G, true, true> : sonew_kernel<T, S, G, true, false>)
                            : (relative ? sonew_kernel<T, S, G, false, true> : sonew_kernel<T, S, G, false, false>);
    kernel<<<chunks, kTileThreads, 0, cuda.stream>>>(table, chains, f, guard, pass);
    LLMEFF_LAUNCHED("sonew_kernel");
  }
};

}  // namespace llmeff::cuda::sonew
