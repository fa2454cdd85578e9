// Tridiagonal SONew (arXiv:2311.10085), fused and multi-tensor. Per chain, with H the running second moment restricted
// to the diagonal h0 and the super-diagonal h1, u = L·D·Lᵀ·m where X = L·D·Lᵀ is the LogDet-nearest preconditioner:
//
//   m ← β1·m + (1−β1)·g     h0_j ← β2·h0_j + (1−β2)·g_j²     h1_j ← β2·h1_j + (1−β2)·g_j·g_{j+1}
//   a = h0 + δ    ψ_j = h1_j / a_{j+1}    S_j = a_j − ψ_j·h1_j    (S_j ≤ γ·a_j: ψ_j = 0, S_j = a_j)
//   z_j = (m_j − ψ_j·m_{j+1}) / S_j       u_j = z_j − ψ_{j−1}·z_{j−1}
//   p_j ← p_j − lr·(scale·u_j + weight_decay·p_j)
//
// Bias correction divides H by c2 = 1−β2ᵗ and m by c1 = 1−β1ᵗ; instead of dividing the arrays, δ (and an absolute γ) is
// multiplied by c2 and u by c2/c1: the same numbers with two roundings less where S cancels. At the end of a chain h1
// is kept 0, so that ψ = 0 there and no other step needs to know about chains.
//
// Passes, each a parallel_for over chunks:
//   update  m, h0, h1 in place, with the squares of the grafting reference
//   factor  z, then u; sums u² or applies it to p
// Both are one loop: update runs one vector ahead of factor, which finds the new state and its neighbours in registers.
// Without grafting that is all (36 bytes a float32 parameter). With grafting the first pass sums, and a second one
// factors again from the new state: 48 bytes. Keeping u instead would take 44, a scratch array as large as the largest
// tensor, and stores past the caches. That second pass walks backwards, to meet what the first one left in the caches,
// and batches of small tensors stay in them. With relative eps the passes are three: δ needs the whole chain's new
// state.
//
// Memory is what the step waits for: the loops ask for what they will need kAhead elements later, which the caches'
// own prefetchers, with up to eight streams before them, leave to chance.
//
// In-place hazard: a chunk needs the new state of its two neighbours, which other threads overwrite. The new values at
// every chunk border are computed from the old ones before the first pass starts (Border).
#include "cpu_kernels.h"
#include "llmeff/parallel.h"
#include "sonew_factor.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace sonew {
namespace {

// Elements of a batch of tensors whose passes follow each other while their arrays are still in the shared cache.
constexpr int64_t kBatch = 1 << 18;

// 32 cache lines: nearer ones come too late, farther ones may be gone again.
template <class T>
constexpr int64_t kAhead = 2048 / static_cast<int64_t>(sizeof(T));
template <class T>
LLMEFF_INLINE void fetch(const T* p) {
  __builtin_prefetch(p + kAhead<T>);
}

struct Sums {
  double grad = 0, reference = 0, update = 0;
  int64_t dropped = 0;
};

LLMEFF_INLINE int64_t aligned(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

template <class T>
struct Step {
  Factors<T> f;
  Graft graft;
  bool relative_eps;
  double lr, update_scale;  // update_scale: what bias correction multiplies u by
  List<InOut> copies;
  Arrays<T>* tensors;
  Chunk* chunks;
  Border<T>* borders;        // [chunk]: at its begin, unless that is the tensor's
  Sums* sums;                // [chunk]
  double *unit_grad, *rate;  // [tensor]
  int64_t* first_chunk;      // [tensor + 1]
  T* row_max;                // [chain of the batch], with relative eps
  int64_t* first_chain;      // [tensor]

  const T* row_max_of(int64_t tensor) const { return relative_eps ? row_max + first_chain[tensor] : nullptr; }

  void sum_grads(int64_t i) {
    const Arrays<T>& x = tensors[chunks[i].tensor];
    SumOfSquares<T> squares;
    for (int64_t j = chunks[i].begin; j < chunks[i].end; j += kLanes<T>) {
      const int64_t n = chunks[i].end - j;
      squares.add((n < kLanes<T> ? load_part(x.g + j, n) : load(x.g + j)) * f.grad_scale);
    }
    sums[i].grad = squares.total();
  }

  template <Graft kGraft>
  void update_chunk(int64_t i) {
    const Chunk& c = chunks[i];
    const Factors<T> factors = f;
    const Arrays<T> x = tensors[c.tensor];
    const T unit = static_cast<T>(unit_grad[c.tensor]);
    int64_t last = chain_end(c.begin, x.chain);
    SumOfSquares<T> squares;
    int64_t j = c.begin;
    for (; j + kLanes<T> <= c.end; j += kLanes<T>)
      update_vector<kGraft, true>(factors, x, j, kLanes<T>, last, unit, squares);
    if (j < c.end) update_vector<kGraft, false>(factors, x, j, c.end - j, last, unit, squares);
    sums[i].reference = squares.total();
  }

  // Copies of what the loops read: the arrays that they write might else hold it.
  template <Graft kGraft>
  void update_and_factor_chunk(int64_t i) {
    const Chunk& c = chunks[i];
    const Factors<T> factors = f;
    const Arrays<T> x = tensors[c.tensor];
    const T unit = static_cast<T>(unit_grad[c.tensor]);
    const int64_t end = c.end;
    int64_t last = chain_end(c.begin, x.chain);
    SumOfSquares<T> squares;
    const auto updated = [&]<bool kFull>(int64_t j, int64_t n) __attribute__((always_inline)) {
      if (j + kAhead<T> < end) {
        fetch(x.g + j), fetch(x.m + j), fetch(x.h0 + j), fetch(x.h1 + j);
        if constexpr (kGraft == Graft::kNone) fetch(x.p + j);
        if constexpr (kGraft == Graft::kRmspropNorm) fetch(x.rms + j);
      }
      return update_vector<kGraft, kFull>(factors, x, j, n, last, unit, squares);
    };
    factor_chunk<kGraft == Graft::kNone>(i, factors, x, c.begin > 0 ? borders[i] : Border<T>{},
                                         end < x.n ? borders[i + 1] : Border<T>{}, updated);
    sums[i].reference = squares.total();
  }

  // The state is new everywhere.
  template <bool kApply>
  void factor_chunk_of_state(int64_t i) {
    const Chunk& c = chunks[i];
    const Factors<T> factors = f;
    const Arrays<T> x = tensors[c.tensor];
    const int64_t end = c.end;
    const auto stored = [&]<bool kFull>(int64_t j, int64_t n) __attribute__((always_inline)) {
      if (j + kAhead<T> < end) {
        fetch(x.m + j), fetch(x.h0 + j), fetch(x.h1 + j);
        if constexpr (kApply) fetch(x.p + j);
      }
      return State<T>{load_n<kFull>(x.m + j, n), load_n<kFull>(x.h0 + j, n), load_n<kFull>(x.h1 + j, n)};
    };
    factor_chunk<kApply>(i, factors, x, c.begin > 0 ? border_of_state(x, c.begin) : Border<T>{},
                         end < x.n ? border_of_state(x, end) : Border<T>{}, stored);
  }

  // Applies u to p, or sums its squares.
  template <bool kApply, class StateAt>
  LLMEFF_INLINE void factor_chunk(int64_t i, const Factors<T>& factors, const Arrays<T>& x, const Border<T>& left,
                                  const Border<T>& right, const StateAt& state) {
    const Chunk& c = chunks[i];
    const T* const maxima = row_max_of(c.tensor);
    const T factor_of_u = static_cast<T>(rate[c.tensor]);
    SumOfSquares<T> squares;
    const auto use = [&]<bool kFull>(int64_t j, int64_t n, Vec<T> u) __attribute__((always_inline)) {
      if constexpr (kApply) {
        store_n<kFull>(x.p + j, load_n<kFull>(x.p + j, n) * factors.keep - u * factor_of_u, n);
      } else {
        if constexpr (!kFull)
          for (int64_t k = n; k < kLanes<T>; ++k) u[k] = 0;  // may be 0 / 0
        squares.add(u);
      }
    };
    const Surroundings<T> around = {c.begin > 0 ? psi_z_before(factors, x, maxima, c.begin, left) : T{0}, right.after_m,
                                    right.after_h0};
    sums[i].dropped = factor_range(factors, x, maxima, c.begin, c.end, around, state, use);
    if constexpr (kApply) {
      if (copies.size > 0) copy_params(x.p, copies[c.tensor], c.begin, c.end);
    } else {
      sums[i].update = squares.total();
    }
  }

  void prepare_border(int64_t i) {
    const Chunk& c = chunks[i];
    if (c.begin > 0) borders[i] = updated_border(f, tensors[c.tensor], c.begin);
  }

  // One batch: whole tensors [from, to).
  template <Graft kGraft>
  void run(int64_t from, int64_t to) {
    constexpr bool kGrafts = kGraft != Graft::kNone;
    const int64_t first = first_chunk[from], count = first_chunk[to] - first;
    for (int64_t i = first; i < first + count; ++i) sums[i] = {};
    for (int64_t t = from; t < to; ++t) rate[t] = lr * update_scale;
    if constexpr (kGraft == Graft::kRmspropNorm) {
      parallel_for(count, [&](int64_t i, int) { sum_grads(first + i); });
      for (int64_t t = from; t < to; ++t) unit_grad[t] = 1.0 / (__builtin_sqrt(total(t, &Sums::grad)) + 1e-16);
    }
    if (relative_eps) {
      int64_t chains = 0;
      for (int64_t t = from; t < to; ++t) {
        first_chain[t] = chains;
        chains += (tensors[t].n + tensors[t].chain - 1) / tensors[t].chain;
      }
      for (int64_t i = 0; i < chains; ++i) row_max[i] = 0;
      parallel_for(count, [&](int64_t i, int) { update_chunk<kGraft>(first + i); });
      parallel_for(count, [&](int64_t i, int) {
        const Chunk& c = chunks[first + i];
        row_sums(tensors[c.tensor], c.begin, c.end, row_max + first_chain[c.tensor]);
      });
      parallel_for(count, [&](int64_t i, int) { factor_chunk_of_state<!kGrafts>(first + i); });
    } else {
      for (int64_t i = first; i < first + count; ++i) prepare_border(i);
      parallel_for(count, [&](int64_t i, int) { update_and_factor_chunk<kGraft>(first + i); });
    }
    if constexpr (!kGrafts) return;
    for (int64_t t = from; t < to; ++t) {
      const double norm = __builtin_sqrt(total(t, &Sums::update));
      rate[t] = norm == 0 ? 0.0 : lr * __builtin_sqrt(total(t, &Sums::reference)) / norm;
    }
    parallel_for(count, [&](int64_t i, int) { factor_chunk_of_state<true>(first + count - 1 - i); });
  }

  void run_batch(int64_t from, int64_t to) {
    switch (graft) {
      case Graft::kNone:
        return run<Graft::kNone>(from, to);
      case Graft::kAdam:
        return run<Graft::kAdam>(from, to);
      case Graft::kAdamRaw:
        return run<Graft::kAdamRaw>(from, to);
      case Graft::kSgd:
        return run<Graft::kSgd>(from, to);
      case Graft::kMomentum:
        return run<Graft::kMomentum>(from, to);
      case Graft::kRmspropNorm:
        return run<Graft::kRmspropNorm>(from, to);
    }
  }

  double total(int64_t tensor, double Sums::* what) const {
    double sum = 0;
    for (int64_t i = first_chunk[tensor]; i < first_chunk[tensor + 1]; ++i) sum += sums[i].*what;
    return sum;
  }
};

}  // namespace
}  // namespace sonew

void CpuKernels::sonew_step(const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                            const List<InOut>& m, const List<InOut>& h0, const List<InOut>& h1, const List<InOut>& rms,
                            const List<int64_t>& chain_length, const In& grad_scale, double lr, double beta1,
                            double beta2, double eps, bool relative_eps, double gamma, bool absolute_gamma, Graft graft,
                            double graft_eps, bool bias_correction, double weight_decay, int64_t step,
                            const InOut& dropped) {
  const double scale = read_scale(grad_scale);
  if (!is_finite(scale) || params.size == 0) return;
  const double t = static_cast<double>(step);
  const double c1 = bias_correction ? 1.0 - __builtin_pow(beta1, t) : 1.0;
  const double c2 = bias_correction ? 1.0 - __builtin_pow(beta2, t) : 1.0;

  using namespace sonew;
  const auto run = [&]<class T>(T) {
    Step<T> s = {};
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
           .keep = static_cast<T>(1.0 - lr * weight_decay)};
    s.graft = graft;
    s.relative_eps = relative_eps;
    s.copies = copies;
    s.lr = lr;
    s.update_scale = c2 / c1;

    const int64_t tensors = params.size, chunks = count_chunks(params);
    int64_t chains = 0;
    if (relative_eps)
      for (int64_t i = 0; i < tensors; ++i)
        chains += chain_length[i] > 0 ? (params[i].size() + chain_length[i] - 1) / chain_length[i] : 1;
    int64_t bytes = 0;
    const auto take = [&](int64_t size) {
      const int64_t at = bytes;
      bytes += aligned(size);
      return at;
    };
    const int64_t at_tensors = take(tensors * sizeof(Arrays<T>)), at_chunks = take(chunks * sizeof(Chunk));
    const int64_t at_borders = take(chunks * sizeof(Border<T>)), at_sums = take(chunks * sizeof(Sums));
    const int64_t at_unit = take(tensors * sizeof(double)), at_rate = take(tensors * sizeof(double));
    const int64_t at_first_chunk = take((tensors + 1) * sizeof(int64_t)),
                  at_first_chain = take(tensors * sizeof(int64_t));
    const int64_t at_row_max = take(chains * sizeof(T));
    char* const memory = shared_scratch<char>(bytes);
    s.tensors = reinterpret_cast<Arrays<T>*>(memory + at_tensors);
    s.chunks = reinterpret_cast<Chunk*>(memory + at_chunks);
    s.borders = reinterpret_cast<Border<T>*>(memory + at_borders);
    s.sums = reinterpret_cast<Sums*>(memory + at_sums);
    s.unit_grad = reinterpret_cast<double*>(memory + at_unit);
    s.rate = reinterpret_cast<double*>(memory + at_rate);
    s.first_chunk = reinterpret_cast<int64_t*>(memory + at_first_chunk);
    s.first_chain = reinterpret_cast<int64_t*>(memory + at_first_chain);
    s.row_max = reinterpret_cast<T*>(memory + at_row_max);

    cut_into_chunks(params, s.chunks);
    s.first_chunk[0] = 0;
    for (int64_t i = 0; i < tensors; ++i) {
      const int64_t n = params[i].size(), chain = chain_length[i];
      s.tensors[i] = {params[i].as<T>(),
                      grads[i].as<T>(),
                      m[i].as<T>(),
                      h0[i].as<T>(),
                      h1[i].as<T>(),
                      rms.size > 0 ? rms[i].as<T>() : nullptr,
                      n,
                      chain > 0 ? chain : (n > 0 ? n : 1)};
      s.first_chunk[i + 1] = s.first_chunk[i] + chunks_of(n);
      s.unit_grad[i] = 0;
    }
    int64_t from = 0, elements = 0;
    for (int64_t i = 0; i < tensors; ++i) {
      elements += s.tensors[i].n;
      if (elements < kBatch && i + 1 < tensors) continue;
      s.run_batch(from, i + 1);
      from = i + 1;
      elements = 0;
    }
    if (dropped.present())
      for (int64_t i = 0; i < chunks; ++i) *dropped.as<double>() += static_cast<double>(s.sums[i].dropped);
  };
  if (params[0].dtype == DType::kF64)
    run(double{});
  else
    run(float{});
}

}  // namespace llmeff::cpu::LLMEFF_ISA
