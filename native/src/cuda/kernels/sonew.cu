// SONew (arXiv:2311.10085), fused and multi-tensor. Per chain, with H the running second moment restricted to the
// diagonal h0 and the super-diagonals h1 … hb, u = L·D·Lᵀ·m where X = L·D·Lᵀ is the LogDet-nearest preconditioner:
//
//   m ← β1·m + (1−β1)·g     hk_j ← β2·hk_j + (1−β2)·g_j·g_{j+k}     a = h0 + δ
//   L[j+1 … j+b, j] = −H[j+1 … j+b, j+1 … j+b]⁻¹ H[j+1 … j+b, j]    S_j: the Schur complement of j in that window
//   D_j = 1/S_j     where S_j ≤ γ·a_j: L[:, j] = 0, D_j = 1/a_j
//   z = D∘(Lᵀm)     u = L·z     p_j ← p_j − lr·(scale·u_j + weight_decay·p_j)
//
// Bias correction multiplies δ (and an absolute γ) by 1−β2ᵗ and u by (1−β2ᵗ)/(1−β1ᵗ) instead of dividing the arrays. At
// the end of a chain hk is kept 0.
//
// sonew_tridiagonal.cuh and sonew_banded.cuh have the passes. Without a graft that is one over memory, 4(7 + 2b) bytes
// a float32 parameter. A graft scales u by a quotient of norms over the whole tensor, known only after the pass: it
// leaves u in scratch memory, and a second kernel reads u and updates p, 4(9 + 2b) bytes. Tensors are taken in groups
// of about kGroup elements, so that the scratch memory stays bounded and u of small tensors is still in the L2 cache,
// which is also where the next group overwrites it.
//
// Sums run over chunks, then over the chunks of a tensor in order: bits do not depend on how blocks are scheduled.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/sonew_banded.h"
#include "cuda/kernels/sonew_tridiagonal.cuh"
#include "cuda/kernels/sum_of_squares.h"

namespace llmeff::cuda {
namespace sonew {
namespace {

constexpr int64_t kGroup = int64_t{1} << 26;

// What u is multiplied by, of each tensor of a group: a block for each.
template <class Table>
__global__ void __launch_bounds__(1024) sonew_rates_kernel(const __grid_constant__ Table table, int first_tensor,
                                                           const double* partial, double lr, double* rates) {
  const int tensor = first_tensor + blockIdx.x;
  double sums[2];
  sum_partials(partial, table.first_chunk[tensor], table.first_chunk[tensor + 1], sums);
  if (threadIdx.x > 0) return;
  const double norm = sqrt(sums[1]);
  rates[tensor] = norm == 0 ? 0.0 : lr * sqrt(sums[0]) / norm;
}

// p ← keep·p − rate·u, chunk by chunk from the last to the first: what the pass before wrote last is still in the
// cache. kWhole: the chunk is full and aligned, and there are no copies.
template <int kChunk, bool kWhole, class T, class Table>
__device__ __forceinline__ void apply_chunk(const Table& table, wide_t<T> keep, DType copy, const StepGuard& guard,
                                            int chunk, int tensor, const wide_t<T>* update, const double* rates) {
  using W = wide_t<T>;
  const int64_t n = kWhole ? INT64_MAX : table.size[tensor],
                begin = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk + 4 * threadIdx.x;
  const bool aligned = kWhole || table.aligned[tensor];
  T* const params = table.template at<T>(kParam, tensor);
  constexpr int kTiles = kChunk / kTile;
  W p[kTiles][4];
  Group<W, 4> u[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    load_four(params, begin + t * kTile, n, aligned, p[t]);
    u[t] = load_group<4>(update + t * kTile + 4 * threadIdx.x);
  }
  const W rate = static_cast<W>(rates[tensor]);
  double factor;
  if (!guard.open(factor)) return;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) p[t][e] = p[t][e] * keep - u[t].at[e] * rate;
    store_four(params, begin + t * kTile, n, aligned, p[t]);
    if constexpr (!kWhole)
      store_copy(table.template at<void>(kCopy, tensor), copy, begin + t * kTile, n, aligned, p[t]);
  }
}

template <int kChunk, class T, class Table>
__global__ void __launch_bounds__(kTileThreads)
    sonew_apply_kernel(const __grid_constant__ Table table, wide_t<T> keep, DType copy,
                       const __grid_constant__ StepGuard guard, int first_chunk, const wide_t<T>* update,
                       const double* rates) {
  const int in_group = gridDim.x - 1 - blockIdx.x, chunk = first_chunk + in_group, tensor = table.tensor_of(chunk);
  const int64_t end = static_cast<int64_t>(chunk + 1 - table.first_chunk[tensor]) * kChunk;
  const wide_t<T>* const of_chunk = update + static_cast<int64_t>(in_group) * kChunk;
  if (end <= table.size[tensor] && table.aligned[tensor] && table.template at<void>(kCopy, tensor) == nullptr)
    apply_chunk<kChunk, true, T>(table, keep, copy, guard, chunk, tensor, of_chunk, rates);
  else
    apply_chunk<kChunk, false, T>(table, keep, copy, guard, chunk, tensor, of_chunk, rates);
}

// Tensors [from, to), at most as many as a table takes.
template <class W, class Path>
void step_table(Context& cuda, const Path& path, const Lists& lists, int64_t from, int64_t to, const Factors<W>& f,
                bool relative_eps, const In& grad_scale, const InOut& dropped, W* update) {
  constexpr int kChunk = Path::kChunk, kCapacity = Path::Table::kCapacity;
  typename Path::Table table;
  typename Path::TableChains chains;
  int64_t all_chains = 0;
  for (int64_t i = from; i < to; ++i) {
    const int64_t chain = lists.chain(i);
    chains.length[i - from] = chain;
    chains.first[i - from] = all_chains;
    chains.rounding_id[i - from] = lists.rounding_ids[i];
    all_chains += ceil_div(lists.params[i].size(), chain);
    lists.add_to(table, i, kChunk);
  }
  const StepGuard guard = step_guard(cuda, grad_scale);
  Pass<W> pass = {};
  pass.dropped = dropped.as<double>();
  if (f.graft == Graft::kRmspropNorm) {
    double* const squares = cuda.scratch<double>(table.count);
    sums_of_squares(cuda, {lists.grads.items + from, to - from}, grad_scale, squares);
    pass.grad_squares = squares;
  }
  if (f.graft != Graft::kNone) pass.partial = cuda.scratch<double>(2 * table.chunks());
  if (relative_eps) {
    pass.row_max = cuda.scratch<W>(all_chains);
    LLMEFF_CUDA(cudaMemsetAsync(pass.row_max, 0, static_cast<size_t>(all_chains) * sizeof(W), cuda.stream));
  }
  path.prepare(cuda, table, chains, f, guard, pass);
  if (f.graft == Graft::kNone) return path.step(cuda, table, chains, f, guard, pass, table.chunks());
  double* const rates = cuda.scratch<double>(table.count);
  // Groups end at kGroup elements.
  int ends[kCapacity], groups = 0;
  for (int tensor = 0, first = 0; tensor < table.count; ++tensor) {
    const bool last = tensor + 1 == table.count;
    if (!last && int64_t{table.first_chunk[tensor + 2] - table.first_chunk[first]} * kChunk <= kGroup) continue;
    ends[groups++] = first = tensor + 1;
  }
  pass.update = update;
  for (int group = 0, first = 0; group < groups; first = ends[group++]) {
    const int chunks = table.first_chunk[ends[group]] - table.first_chunk[first];
    pass.first_chunk = table.first_chunk[first];
    path.step(cuda, table, chains, f, guard, pass, chunks);
    sonew_rates_kernel<<<ends[group] - first, 1024, 0, cuda.stream>>>(table, first, pass.partial, f.now.lr, rates);
    LLMEFF_LAUNCHED("sonew_rates_kernel");
    sonew_apply_kernel<kChunk, W><<<chunks, kTileThreads, 0, cuda.stream>>>(table, f.now.keep, f.copy, guard,
                                                                            pass.first_chunk, pass.update, rates);
    LLMEFF_LAUNCHED("sonew_apply_kernel");
  }
}

template <class W, class Path>
void step_all(Context& cuda, const Path& path, const Lists& lists, const Factors<W>& f, bool relative_eps,
              const In& grad_scale, const InOut& dropped) {
  constexpr int kChunk = Path::kChunk, kCapacity = Path::Table::kCapacity;
  // A group has up to kGroup elements, or one larger tensor.
  const int64_t count = lists.params.size;
  int64_t total = 0, most = kGroup / kChunk;
  for (int64_t i = 0; i < count; ++i) {
    total += ceil_div(lists.params[i].size(), kChunk);
    most = std::max(most, ceil_div(lists.params[i].size(), kChunk));
  }
  W* const update = f.graft == Graft::kNone ? nullptr : cuda.scratch<W>(std::min(total, most) * kChunk);
  for (int64_t from = 0; from < count; from += kCapacity)
    step_table(cuda, path, lists, from, std::min(count, from + kCapacity), f, relative_eps, grad_scale, dropped,
               update);
}

}  // namespace
}  // namespace sonew

void CudaKernels::sonew_step(const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                             const List<InOut>& m, const List<InOut>& h, const List<InOut>& rms,
                             const List<int64_t>& chain_length, const List<int64_t>& rounding_ids, const In& grad_scale,
                             double lr, double beta1, double beta2, double eps, bool relative_eps, double gamma,
                             bool absolute_gamma, bool isolate, Graft graft, double graft_eps, bool bias_correction,
                             double weight_decay, int64_t step, int64_t seed, const InOut& dropped) {
  if (params.size == 0) return;
  const double t = static_cast<double>(step);
  const double c1 = bias_correction ? 1.0 - std::pow(beta1, t) : 1.0,
               c2 = bias_correction ? 1.0 - std::pow(beta2, t) : 1.0;
  const sonew::Lists lists = {params, copies, grads, m, h, rms, chain_length, rounding_ids};
  const DType dtype = params[0].dtype, state = m[0].dtype;
  const auto run = [&]<class W>(W, DType grad_dtype) {
    const double unit = state == DType::kBF16 ? 0x1p-8 : sizeof(W) == 4 ? 0x1p-24 : 0x1p-53;
    const sonew::Factors<W> f = {
        .now = {.delta = static_cast<W>(eps * c2),
                .relative_floor = static_cast<W>(1e-24 * c2),
                .gamma_floor = static_cast<W>(absolute_gamma ? gamma * c2 : 0.0),
                .reference_m = static_cast<W>(1.0 / c1),
                .reference_root = static_cast<W>(graft == Graft::kAdam ? 1.0 / std::sqrt(c2) : 1.0),
                .keep = static_cast<W>(1.0 - lr * weight_decay),
                .lr = lr,
                .update_scale = c2 / c1,
                .step = static_cast<uint64_t>(step)},
        .beta1 = static_cast<W>(beta1),
        .one_minus_beta1 = static_cast<W>(1.0 - beta1),
        .beta2 = static_cast<W>(beta2),
        .one_minus_beta2 = static_cast<W>(1.0 - beta2),
        .relative_eps = static_cast<W>(eps),
        .gamma = static_cast<W>(absolute_gamma ? 0.0 : gamma),
        .reference_eps = static_cast<W>(graft_eps),
        .pivot_floor = static_cast<W>(unit),
        .graft = graft,
        .seed = static_cast<uint64_t>(seed),
        .copy = copies.size > 0 ? copies[0].dtype : DType::kF32};
    const sonew::banded::Kind kind = {.band = static_cast<int>(lists.band()), .isolate = isolate, .grads = grad_dtype};
    const auto step_with = [&](const auto& path) {
      sonew::step_all<W>(cuda_, path, lists, f, relative_eps, grad_scale, dropped);
    };
    const auto step_of = [&]<class S>(TypeTag<S>) {
      if (kind.band != 1 || isolate) return step_with(sonew::Banded<W, S>{kind});
      with_gradients<W>(grad_dtype, [&]<class G>(G) { step_with(sonew::Tridiagonal<W, S, typename G::type>{}); });
    };
    if constexpr (sizeof(W) == 4) {
      if (state == DType::kBF16) return step_of(TypeTag<bf16>{});
    }
    step_of(TypeTag<W>{});
  };
  if (dtype == DType::kF64 && state == DType::kF64)
    run(double{}, grads[0].dtype);
  else if (dtype == DType::kF32 && (state == DType::kF32 || state == DType::kBF16))
    run(float{}, grads[0].dtype);
  else
    fail("ERR_DTYPE",
         "[sonewStep] expected float32 or float64 parameters and state of their dtype, or bfloat16 beside float32; "
         "received dtypes %d and %d.",
         static_cast<int>(dtype), static_cast<int>(state));
}

}  // namespace llmeff::cuda
