// SONew (arXiv:2311.10085), fused and multi-tensor. Per chain, with H the running second moment restricted to the
// diagonal h0 and the super-diagonals h1 … hb, u = L·D·Lᵀ·m where X = L·D·Lᵀ is the LogDet-nearest preconditioner:
//
//   m ← β1·m + (1−β1)·g     hk_j ← β2·hk_j + (1−β2)·g_j·g_{j+k}     a = h0 + δ
//   L[j+1 … j+b, j] = −H[j+1 … j+b, j+1 … j+b]⁻¹ H[j+1 … j+b, j]    S_j: the Schur complement of j in that window
//   D_j = 1/S_j     where S_j ≤ γ·a_j: L[:, j] = 0, D_j = 1/a_j
//   z = D∘(Lᵀm)     u = L·z     p_j ← p_j − lr·(scale·u_j + weight_decay·p_j)
//
// and for b = 1: ψ_j = −L[j+1, j] = h1_j / a_{j+1}, S_j = a_j − ψ_j·h1_j.
//
// Bias correction divides H by c2 = 1−β2ᵗ and m by c1 = 1−β1ᵗ; instead of dividing the arrays, δ (and an absolute γ) is
// multiplied by c2 and u by c2/c1: the same numbers with two roundings less where S cancels. At the end of a chain hk
// is kept 0, so that windows end there and no other step needs to know about chains.
//
// sonew_step.h has the order of the passes, sonew_tridiagonal.h and sonew_banded.h the passes.
//
// In-place hazard: a chunk needs the new state of its two neighbours, which other threads overwrite. The new values at
// every chunk border are computed from the old ones before the first pass starts.
#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "sonew_banded.h"
#include "sonew_tridiagonal.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// Lays out the path's memory, runs it, and adds up what it dropped.
template <class Path>
void run_path(Path& path, const InOut& dropped) {
  sonew::Layout size(nullptr);
  path.lay_out(size);
  sonew::Layout memory(shared_scratch<char>(size.bytes()));
  path.lay_out(memory);
  path.prepare();
  path.run(path);
  if (!dropped.present()) return;
  for (int64_t i = 0; i < count_chunks(path.lists->params); ++i)
    *dropped.as<double>() += static_cast<double>(path.sums[i].dropped);
}

}  // namespace

void CpuKernels::sonew_step(const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                            const List<InOut>& m, const List<InOut>& h, const List<InOut>& rms,
                            const List<int64_t>& chain_length, const List<int64_t>& rounding_ids, const In& grad_scale,
                            double lr, double beta1, double beta2, double eps, bool relative_eps, double gamma,
                            bool absolute_gamma, bool isolate, Graft graft, double graft_eps, bool bias_correction,
                            double weight_decay, int64_t step, int64_t seed, const InOut& dropped) {
  const double scale = read_scale(grad_scale);
  if (!is_finite(scale) || params.size == 0) return;
  const double t = static_cast<double>(step);
  const double c1 = bias_correction ? 1.0 - __builtin_pow(beta1, t) : 1.0;
  const double c2 = bias_correction ? 1.0 - __builtin_pow(beta2, t) : 1.0;
  const sonew::Lists lists = {params, copies, grads, m, h, rms, chain_length, rounding_ids};
  const DType dtype = params[0].dtype, state = m[0].dtype;
  if ((dtype != DType::kF32 && dtype != DType::kF64) ||
      (state != dtype && !(state == DType::kBF16 && dtype == DType::kF32)))
    fail("ERR_DTYPE",
         "[sonewStep] expected float32 or float64 parameters and state of their dtype, or bfloat16 beside "
         "float32; received dtypes %d and %d.",
         static_cast<int>(dtype), static_cast<int>(state));

  const auto run = [&]<class T>(T) {
    const double unit = state == DType::kBF16 ? 0x1p-8 : sizeof(T) == 4 ? 0x1p-24 : 0x1p-53;
    const auto begin = [&](sonew::Step<T>& s) {
      s.lists = &lists;
      s.f = {.grad_scale = static_cast<T>(scale),
             .beta1 = static_cast<T>(beta1),
             .one_minus_beta1 = static_cast<T>(1.0 - beta1),
             .beta2 = static_cast<T>(beta2),
             .one_minus_beta2 = static_cast<T>(1.0 - beta2),
             .delta = static_cast<T>(eps * c2),
             .relative_eps = static_cast<T>(eps),
             .relative_floor = static_cast<T>(1e-24 * c2),
             .gamma = static_cast<T>(absolute_gamma ? 0.0 : gamma),
             .gamma_floor = static_cast<T>(absolute_gamma ? gamma * c2 : 0.0),
             .reference_m = static_cast<T>(1.0 / c1),
             .reference_root = static_cast<T>(graft == Graft::kAdam ? 1.0 / __builtin_sqrt(c2) : 1.0),
             .reference_eps = static_cast<T>(graft_eps),
             .keep = static_cast<T>(1.0 - lr * weight_decay),
             .pivot_floor = static_cast<T>(unit)};
      s.graft = graft;
      s.relative_eps = relative_eps;
      s.lr = lr;
      s.update_scale = c2 / c1;
    };
    const auto run_narrow = [&]<bool kEdges>() {
      sonew::Tridiagonal<kEdges, T> path = {};
      begin(path);
      run_path(path, dropped);
    };
    if (state == dtype && lists.band() == 0) return run_narrow.template operator()<false>();
    if (state == dtype && lists.band() == 1 && !isolate) return run_narrow.template operator()<true>();
    sonew::Banded<T> path = {};
    begin(path);
    path.kind = {.band = lists.band(),
                 .reach = (isolate ? 2 : 1) * lists.band(),
                 .half_state = state == DType::kBF16,
                 .grads = grads[0].dtype,
                 .seed = static_cast<uint64_t>(seed),
                 .step = static_cast<uint64_t>(step)};
    path.factor = sonew::factor_tile_of<T>(lists.band());
    path.isolate = isolate;
    run_path(path, dropped);
  };
  if (dtype == DType::kF64)
    run(double{});
  else
    run(float{});
}

}  // namespace llmeff::cpu::LLMEFF_ISA
