// SONew with any band, a block for each chunk of kChunk elements:
//
//   1  every thread updates the state of four neighbouring elements, in memory and in rows of shared memory, which also
//      get the new state of up to kMostBand elements before the chunk and 2·kMostBand after it (borders, made by a
//      kernel before, because other blocks overwrite the old state)
//   2  every thread eliminates the windows of elements that lie a block apart (neighbouring threads read neighbouring
//      words), all in registers, and writes z and L[j+k, j]·z_j to rows of shared memory
//   3  u_j = z_j + Σ_k L[j, j−k]·z_{j−k} goes to p or, with a graft, to scratch memory
//
// The window of element j is the matrix H[j … j+b, j … j+b]. Eliminating its vertices from the last to the second (H =
// U·D·Uᵀ with U unit upper triangular) leaves the Schur complement S_j as the first pivot, and the first row of U⁻¹ is
// L[j … j+b, j]. A pivot that is not above the rounding error of its diagonal says nothing: that vertex is left out.
#pragma once

#include "cuda/kernels/sonew_banded.h"
#include "cuda/kernels/sonew_rounding.cuh"

namespace llmeff::cuda::sonew {
namespace banded {

constexpr int kLead = 12;  // elements of a row before the chunk's own: a multiple of 4, at least kMostBand
static_assert(kLead >= kMostBand && kLead % 4 == 0);

template <int B>
constexpr int kRow = kLead + kChunk + (2 * B + 3) / 4 * 4;
// Rows: gradients and later z; m; the diagonals; y_k = L[j+k, j]·z_j for k = 1 … B.
template <int B>
constexpr int kRows = 3 + 2 * B;
template <int B, class W>
constexpr int kSharedBytes = kRows<B> * kRow<B> * static_cast<int>(sizeof(W)) + kRow<B>;  // and which elements failed
// What the registers leave room for.
template <int B, class W>
constexpr int kBlocksPerMultiprocessor = sizeof(W) > 4 ? 1
                                         : B <= 2      ? 4
                                         : B <= 4      ? 3
                                                       : 2;

template <class W>
__device__ __forceinline__ W load_grad(const void* grads, DType dtype, int64_t j) {
  if constexpr (std::is_same_v<W, float>) {
    if (dtype == DType::kBF16) return widen<W>(static_cast<const bf16*>(grads)[j]);
    if (dtype == DType::kF16) return widen<W>(static_cast<const f16*>(grads)[j]);
  }
  return static_cast<const W*>(grads)[j];
}
template <class W>
__device__ __forceinline__ void load_four_grads(const void* grads, DType dtype, int64_t j, int64_t n, bool aligned,
                                                W (&x)[4]) {
  if constexpr (std::is_same_v<W, float>) {
    if (dtype == DType::kBF16) return load_four(static_cast<const bf16*>(grads), j, n, aligned, x);
    if (dtype == DType::kF16) return load_four(static_cast<const f16*>(grads), j, n, aligned, x);
  }
  load_four(static_cast<const W*>(grads), j, n, aligned, x);
}

// The new state of the elements around every border between chunks: borders[chunk][array][position], position 0 being
// the element `band` before the chunk's first.
template <class W, class S>
__global__ void sonew_banded_borders_kernel(const __grid_constant__ Table table,
                                            const __grid_constant__ TableChains chains,
                                            const __grid_constant__ Factors<W> f,
                                            const __grid_constant__ StepGuard guard, Kind kind, W* borders) {
  const int width = kind.border_width();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int chunk = static_cast<int>(index / width), position = static_cast<int>(index % width);
  if (chunk >= table.first_chunk[table.count]) return;
  const int tensor = table.tensor_of(chunk);
  const int64_t first = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk, n = table.size[tensor],
                j = first - kind.band + position;
  double factor;
  if (first == 0 || j >= n || !guard.open(factor)) return;
  const W scale = static_cast<W>(factor);
  const void* const grads = table.at<const void>(kGrad, tensor);
  const W g = load_grad<W>(grads, kind.grads, j) * scale;
  const int64_t left = to_chain_end(j, n, chains.length[tensor]);
  W* const to = borders + static_cast<int64_t>(chunk) * (kind.band + 2) * width + position;
  const auto make = [&](int array, const S* state, W sample, W beta, W rest) {
    const W x = advance(widen<W>(state[j]), sample, beta, rest);
    to[array * width] = rounded<S>(f, chains.rounding_id[tensor], array, j, x);
  };
  make(0, table.at<const S>(kFirst, tensor), g, f.beta1, f.one_minus_beta1);
  for (int k = 0; k <= kind.band; ++k) {
    const W next = k <= left ? load_grad<W>(grads, kind.grads, j + k) * scale : W{0};
    make(1 + k, table.at<const S>(kDiagonal + k, tensor), g * next, f.beta2, f.one_minus_beta2);
  }
}

// The largest row sum Σ_i |H_ij| over the band, of the stored state of each chain.
template <class W, class S>
__global__ void __launch_bounds__(kTileThreads)
    sonew_banded_row_max_kernel(const __grid_constant__ Table table, const __grid_constant__ TableChains chains,
                                const __grid_constant__ StepGuard guard, int band, W* row_max) {
  const int tensor = table.tensor_of(blockIdx.x);
  const int64_t n = table.size[tensor], chain = chains.length[tensor];
  double factor;
  if (!guard.open(factor)) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.x - table.first_chunk[tensor]) * kChunk;
  W* const maxima = row_max + chains.first[tensor];
#pragma unroll 1
  for (int t = 0; t < kChunk / kTileThreads; ++t) {
    const int64_t j = begin + t * kTileThreads + threadIdx.x;
    W sum = 0;
    if (j < n) {
      sum = widen<W>(table.at<const S>(kDiagonal, tensor)[j]);
      for (int k = 1; k <= band; ++k) {
        const S* const diagonal = table.at<const S>(kDiagonal + k, tensor);
        sum += abs(widen<W>(diagonal[j])) + (j >= k ? abs(widen<W>(diagonal[j - k])) : W{0});
      }
    }
    const int64_t index = chain >= n || j >= n ? 0 : j / chain;
    // Elements after the tensor's last have the sum 0, which any chain may get.
    if (!__all_sync(0xFFFFFFFFu, index == __shfl_sync(0xFFFFFFFFu, index, 0) || j >= n)) {
      if (j < n) raise_to(maxima + index, sum);
      continue;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const W other = __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
      if (sum < other) sum = other;
    }
    if (threadIdx.x % 32 == 0) raise_to(maxima + index, sum);
  }
}

template <int B, class W>
struct Column {
  W schur, l[B + 1];  // l[0] is 1
};

// 1 / pivot, and 0 where that says nothing: a pivot that may be rounding alone. Without the branches of a division for
// numbers that are not normal, of which a window has B: to about one unit in the last place.
__device__ __forceinline__ float inverse_of(float pivot, float least) {
  float guess;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(guess) : "f"(pivot));
  const float inverse = fmaf(guess, fmaf(-pivot, guess, 1.0f), guess);
  return pivot > fmaxf(least, 0x1p-126f) && pivot < 0x1p126f ? inverse : 0.0f;
}
__device__ __forceinline__ double inverse_of(double pivot, double least) {
  return pivot > least ? 1 / pivot : 0.0;
}

// The window of the element at q of the rows. kCut: it ends before the first failing element after its own.
template <int B, bool kCut, class W>
__device__ __forceinline__ Column<B, W> eliminate(const W* diagonals, const uint8_t* failed, W pivot_floor, int q) {
  W at[B + 1][B + 1], diagonal[B + 1];
#pragma unroll
  for (int r = 0; r <= B; ++r) {
    diagonal[r] = at[r][r] = diagonals[q + r];
#pragma unroll
    for (int c = r + 1; c <= B; ++c) at[r][c] = diagonals[(c - r) * kRow<B> + q + r];
  }
  if constexpr (kCut) {
    int end = B + 1;
#pragma unroll
    for (int c = B; c > 0; --c)
      if (failed[q + c]) end = c;
#pragma unroll
    for (int r = 0; r <= B; ++r)
#pragma unroll
      for (int c = r + 1; c <= B; ++c)
        if (c >= end) at[r][c] = 0;
  }
#pragma unroll
  for (int p = B; p > 0; --p) {
    const W inverse = inverse_of(at[p][p], diagonal[p] * pivot_floor);
#pragma unroll
    for (int r = 0; r < p; ++r) {
      const W u = at[r][p] * inverse;
#pragma unroll
      for (int c = r; c < p; ++c) at[r][c] = fma(-u, at[c][p], at[r][c]);
      at[r][p] = u;
    }
  }
  Column<B, W> made;
  made.schur = at[0][0];
#pragma unroll
  for (int p = 1; p <= B; ++p) {
    W l = -at[0][p];
#pragma unroll
    for (int r = 1; r < p; ++r) l = fma(-made.l[r], at[r][p], l);
    made.l[p] = l;
  }
  return made;
}

template <int B, class W, class S>
__global__ void __launch_bounds__(kTileThreads, kBlocksPerMultiprocessor<B, W>)
    sonew_banded_kernel(const __grid_constant__ Table table, const __grid_constant__ TableChains chains,
                        const __grid_constant__ Factors<W> f, const __grid_constant__ StepGuard guard,
                        const __grid_constant__ Kind kind, const __grid_constant__ Pass<W> pass, Work work) {
  extern __shared__ uint4 shared[];
  W* const rows = reinterpret_cast<W*>(shared);
  W *const row_g = rows, *const row_m = rows + kRow<B>, *const row_h = rows + 2 * kRow<B>,
           *const row_y = rows + (3 + B) * kRow<B>;  // row_y[(k − 1)·kRow]
  uint8_t* const failed = reinterpret_cast<uint8_t*>(rows + kRows<B> * kRow<B>);
  const int chunk = pass.first_chunk + blockIdx.x, tensor = table.tensor_of(chunk);
  const int64_t n = table.size[tensor], chain = chains.length[tensor], id = chains.rounding_id[tensor],
                begin = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk, j = begin + 4 * threadIdx.x;
  const bool aligned = table.aligned[tensor];
  const int own = kLead + 4 * threadIdx.x;  // of the four elements from j on, in a row
  const void* const grads = table.at<const void>(kGrad, tensor);
  const auto array_at = [&](int array) { return table.at<S>(array == 0 ? kFirst : kDiagonal + array - 1, tensor); };
  const auto row_of = [&](int array) { return row_m + array * kRow<B>; };

  W x[B + 2][4], g[4] = {};
#pragma unroll
  for (int array = 0; array < B + 2; ++array) load_four(array_at(array), j, n, aligned, x[array]);
  W after = 0;
  if (work != Work::kFactor) {
    load_four_grads(grads, kind.grads, j, n, aligned, g);
    const int64_t at = begin + kChunk + threadIdx.x;
    if (static_cast<int>(threadIdx.x) < B && at < n) after = load_grad<W>(grads, kind.grads, at);
  }
  double factor;
  if (!guard.open(factor)) return;
  const W scale = static_cast<W>(factor);

  double sums[2] = {};  // of the squares of the reference and of the update
  if (work != Work::kFactor) {
#pragma unroll
    for (int e = 0; e < 4; ++e) g[e] *= scale;
    store_group(row_g + own, Group<W, 4>{g[0], g[1], g[2], g[3]});
    if (static_cast<int>(threadIdx.x) < (2 * B + 3) / 4 * 4)
      row_g[kLead + kChunk + threadIdx.x] = static_cast<int>(threadIdx.x) < B ? after * scale : W{0};
    __syncthreads();
    constexpr int kNext = 4 + (B + 3) / 4 * 4;
    W next[kNext];
#pragma unroll
    for (int e = 0; e < kNext; e += 4) {
      const Group<W, 4> four = load_group<4>(row_g + own + e);
#pragma unroll
      for (int i = 0; i < 4; ++i) next[e + i] = four.at[i];
    }
    int left[4];  // elements until the end of the chain, at most B; negative: there is none
    {
      int64_t to_end = j < n ? to_chain_end(j, n, chain) : -1;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        left[e] = j + e < n ? static_cast<int>(to_end < B ? to_end : B) : -1;
        to_end = to_end > 0 ? to_end - 1 : chain - 1;
        if (to_end > n - 2 - j - e) to_end = n - 2 - j - e;
      }
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) x[0][e] = advance(x[0][e], g[e], f.beta1, f.one_minus_beta1);
#pragma unroll
    for (int k = 0; k <= B; ++k)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        x[1 + k][e] = advance(x[1 + k][e], k <= left[e] ? g[e] * next[e + k] : W{0}, f.beta2, f.one_minus_beta2);
#pragma unroll
    for (int array = 0; array < B + 2; ++array) {
      round_four<S>(f, id, array, j, x[array]);
      store_four(array_at(array), j, n, aligned, x[array]);
    }
    if (f.graft != Graft::kNone) {
      W rms[4] = {}, unit_grad = 0;
      if (f.graft == Graft::kRmspropNorm) {
        S* const averages = table.at<S>(kRms, tensor);
        unit_grad = static_cast<W>(1.0 / (sqrt(pass.grad_squares[tensor]) + 1e-16));
        load_four(averages, j, n, aligned, rms);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const W unit = g[e] * unit_grad;
          rms[e] = advance(rms[e], unit * unit, f.beta2, f.one_minus_beta2);
        }
        round_four<S>(f, id, kArrayOfRms, j, rms);
        store_four(averages, j, n, aligned, rms);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (j + e >= n) continue;
        const double r = static_cast<double>(reference(f, g[e], x[0][e], x[1][e], rms[e], g[e] * unit_grad));
        sums[0] += r * r;
      }
    }
    if (work == Work::kUpdate) {
      if (f.graft == Graft::kNone) return;
      block_sums(sums);
      if (threadIdx.x == 0) pass.partial[2 * chunk] = sums[0];
      return;
    }
  }

  // The state with δ into the rows; a vertex that does not exist has no edges and the diagonal 1.
  const auto delta_at = [&](int64_t at) {
    if (pass.row_max == nullptr) return f.now.delta;
    return relative_delta(f, pass.row_max[chains.first[tensor] + (chain >= n ? 0 : at / chain)]);
  };
#pragma unroll
  for (int e = 0; e < 4; ++e) x[1][e] = j + e < n ? x[1][e] + delta_at(j + e) : W{1};
#pragma unroll
  for (int array = 0; array < B + 2; ++array)
    store_group(row_of(array) + own, Group<W, 4>{x[array][0], x[array][1], x[array][2], x[array][3]});
  if constexpr (B > 0) {
    const int width = kind.border_width();
    for (int i = threadIdx.x; i < (B + 2) * width; i += kTileThreads) {
      const int array = i / width, position = i % width;
      const bool before = position < B;
      const int64_t at = before ? begin - B + position : begin + kChunk + position - B;
      W value = array == 1 ? W{1} : W{0};
      if (at >= 0 && at < n) {
        if (work == Work::kFactor)
          value = widen<W>(array_at(array)[at]);
        else
          value = static_cast<const W*>(
              pass.borders)[(static_cast<int64_t>(chunk + !before) * (B + 2) + array) * width + position];
        if (array == 1) value += delta_at(at);
      }
      row_of(array)[before ? kLead - B + position : kLead + kChunk + position - B] = value;
    }
  }
  W p[kChunk / kTileThreads];
  const bool apply = pass.update == nullptr;
#pragma unroll
  for (int t = 0; t < kChunk / kTileThreads; ++t) {
    const int64_t at = begin + t * kTileThreads + threadIdx.x;
    p[t] = apply && at < n ? table.at<const W>(kParam, tensor)[at] : W{0};
  }
  __syncthreads();

  int dropped = 0;
  // Whether the element at q passes the stability rule, NaN does not; counts those of the chunk that don't.
  const auto passes = [&](W schur, int q) {
    const bool kept = schur > fma(row_h[q], f.gamma, f.now.gamma_floor);
    dropped += !kept && q >= kLead && q < kLead + kChunk && begin + q - kLead < n;
    return kept;
  };
  const auto write = [&](const Column<B, W>& made, int q, bool kept) {
    W w = row_m[q];
#pragma unroll
    for (int k = 1; k <= B; ++k) w = fma(made.l[k], row_m[q + k], w);
    const W z = (kept ? w : row_m[q]) / (kept ? made.schur : row_h[q]);
    row_g[q] = z;
#pragma unroll
    for (int k = 1; k <= B; ++k) row_y[(k - 1) * kRow<B> + q] = kept ? made.l[k] * z : W{0};
  };
  constexpr int kFrom = kLead - B, kTo = kLead + kChunk;
  if (kind.isolate) {
#pragma unroll 1
    for (int q = kFrom + threadIdx.x; q < kTo + B; q += kTileThreads)
      failed[q] = !passes(eliminate<B, false>(row_h, failed, f.pivot_floor, q).schur, q);
    __syncthreads();
#pragma unroll 1
    for (int q = kFrom + threadIdx.x; q < kTo; q += kTileThreads) {
      const Column<B, W> made = eliminate<B, true>(row_h, failed, f.pivot_floor, q);
      write(made, q, !failed[q] && made.schur > 0);
    }
  } else {
#pragma unroll 1
    for (int q = kFrom + threadIdx.x; q < kTo; q += kTileThreads) {
      const Column<B, W> made = eliminate<B, false>(row_h, failed, f.pivot_floor, q);
      write(made, q, passes(made.schur, q));
    }
  }
  __syncthreads();

  const W rate = static_cast<W>(f.now.lr * f.now.update_scale);
#pragma unroll
  for (int t = 0; t < kChunk / kTileThreads; ++t) {
    const int in_chunk = t * kTileThreads + threadIdx.x, q = kLead + in_chunk;
    const int64_t at = begin + in_chunk;
    W u = row_g[q];
#pragma unroll
    for (int k = 1; k <= B; ++k) u += row_y[(k - 1) * kRow<B> + q - k];
    if (at >= n) continue;
    if (apply) {
      const W stepped = p[t] * f.now.keep - u * rate;
      table.at<W>(kParam, tensor)[at] = stepped;
      store_copy_of_one(table.at<void>(kCopy, tensor), f.copy, at, stepped);
    } else {
      pass.update[static_cast<int64_t>(blockIdx.x) * kChunk + in_chunk] = u;
      sums[1] += static_cast<double>(u) * static_cast<double>(u);
    }
  }
  if (pass.dropped != nullptr) {
    dropped = __syncthreads_count(dropped > 0) == 0 ? 0 : __reduce_add_sync(0xFFFFFFFFu, dropped);
    if (threadIdx.x % 32 == 0 && dropped > 0) atomicAdd(pass.dropped, static_cast<double>(dropped));  // exact
  }
  if (apply) return;
  block_sums(sums);
  if (threadIdx.x > 0) return;
  if (work == Work::kAll) pass.partial[2 * chunk] = sums[0];
  pass.partial[2 * chunk + 1] = sums[1];
}

template <class W, class S>
struct Launch {
  const Table& table;
  const TableChains& chains;
  const Factors<W>& f;
  const StepGuard& guard;
  const Kind& kind;
  const Pass<W>& pass;
  int chunks;
  Work work;
  cudaStream_t stream;

  template <int B>
  void run() const {
    const auto kernel = sonew_banded_kernel<B, W, S>;
    constexpr int kBytes = kSharedBytes<B, W>;
    if constexpr (kBytes > 48 * 1024)
      LLMEFF_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    kernel<<<chunks, kTileThreads, kBytes, stream>>>(table, chains, f, guard, kind, pass, work);
    LLMEFF_LAUNCHED("sonew_banded_kernel");
  }
  template <int B = 0>
  void run_band() const {
    if (kind.band == B) return run<B>();
    if constexpr (B < kMostBand) run_band<B + 1>();
  }
};

}  // namespace banded

template <class W, class S>
void Banded<W, S>::prepare(Context& cuda, const Table& table, const TableChains& chains, const Factors<W>& f,
                           const StepGuard& guard, Pass<W>& pass) const {
  using namespace banded;
  if (pass.row_max != nullptr) {
    Launch<W, S>{table, chains, f, guard, kind, pass, table.chunks(), Work::kUpdate, cuda.stream}.run_band();
    sonew_banded_row_max_kernel<W, S>
        <<<table.chunks(), kTileThreads, 0, cuda.stream>>>(table, chains, guard, kind.band, pass.row_max);
    LLMEFF_LAUNCHED("sonew_banded_row_max_kernel");
    return;
  }
  if (kind.band == 0 || table.chunks() == table.count) return;
  const int64_t positions = int64_t{table.chunks()} * kind.border_width();
  W* const borders = cuda.scratch<W>(positions * (kind.band + 2));
  sonew_banded_borders_kernel<W, S><<<static_cast<unsigned>(ceil_div(positions, 128)), 128, 0, cuda.stream>>>(
      table, chains, f, guard, kind, borders);
  LLMEFF_LAUNCHED("sonew_banded_borders_kernel");
  pass.borders = borders;
}

template <class W, class S>
void Banded<W, S>::step(Context& cuda, const Table& table, const TableChains& chains, const Factors<W>& f,
                        const StepGuard& guard, const Pass<W>& pass, int chunks) const {
  using namespace banded;
  const Work work = pass.row_max != nullptr ? Work::kFactor : Work::kAll;
  Launch<W, S>{table, chains, f, guard, kind, pass, chunks, work, cuda.stream}.run_band();
}

}  // namespace llmeff::cuda::sonew
