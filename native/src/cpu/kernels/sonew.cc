// Tridiagonal SONew (arXiv:2311.10085; optimizers.md §3), fused and multi-tensor. Per chain, with H the running second moment restricted to the
// diagonal h0 and the super-diagonal h1, u = L·D·Lᵀ·m where X = L·D·Lᵀ is the LogDet-nearest preconditioner:
//
//   m ← β1·m + (1−β1)·g     h0_j ← β2·h0_j + (1−β2)·g_j²     h1_j ← β2·h1_j + (1−β2)·g_j·g_{j+1}
//   a = h0 + δ    ψ_j = h1_j / a_{j+1}    S_j = a_j − ψ_j·h1_j    (S_j ≤ γ·a_j: ψ_j = 0, S_j = a_j)
//   z_j = (m_j − ψ_j·m_{j+1}) / S_j       u_j = z_j − ψ_{j−1}·z_{j−1}       p_j ← p_j − lr·(scale·u_j + weight_decay·p_j)
//
// Bias correction divides H by c2 = 1−β2ᵗ and m by c1 = 1−β1ᵗ; instead of dividing the arrays, δ (and an absolute γ) is multiplied by
// c2 and u by c2/c1: the same numbers with two roundings less where S cancels. At the end of a chain h1 is kept 0, so that ψ = 0 there
// and no other step needs to know about chains.
//
// Passes, each a parallel_for over chunks:
//   update  m, h0, h1 in place, with the squares of the grafting reference
//   factor  z, then u, per block of kBlock elements in the first-level cache; sums u² or applies it to p
// Without grafting both run block by block in one pass over memory (36 bytes a float32 parameter). With grafting the first pass sums and a second one factors
// again from the new state (48 bytes; keeping u instead would take 44 and a scratch array as large as the model's largest tensor). That
// second pass walks backwards, to meet what the first one left in the caches, and batches of small tensors stay in them altogether.
//
// In-place hazard: a chunk needs the new state of its two neighbours, which other threads overwrite. The new values at
// every chunk border are computed from the old ones before the first pass starts (Border).
#include "cpu_kernels.h"
#include "llmeff/parallel.h"
#include "multi_tensor.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kBlock = 512;
static_assert(kChunk % kBlock == 0);
// Elements of a batch of tensors whose passes follow each other while their arrays are still in the shared cache.
constexpr int64_t kBatch = 1 << 18;

template <class T>
struct Factors {
  T grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, delta, relative_eps, relative_floor, gamma, gamma_floor;
  T reference_m, reference_root, reference_eps, keep;
};

template <class T>
struct Arrays {
  T* p;
  const T* g;
  T *m, *h0, *h1, *rms;
  int64_t n, chain;
};

// The new state on both sides of the border between two chunks of one tensor: element `before`, the last of the left
// chunk, and `after`, the first of the right one.
template <class T>
struct Border {
  T before_m, before_h0, before_h1, after_m, after_h0;
};

struct Sums {
  double grad = 0, reference = 0, update = 0;
  int64_t dropped = 0;
};

// The last element of the chain that holds element j.
LLMEFF_INLINE int64_t chain_end(int64_t j, int64_t chain) { return j / chain * chain + chain - 1; }

// ---- update --------------------------------------------------------------------------------------------------------------

template <class T>
LLMEFF_INLINE Vec<T> average(Vec<T> old, Vec<T> sample, T beta, T rest) {
  return old * beta + sample * rest;
}

// The gradients one element further; 0 after the tensor's last.
template <bool kFull, class T>
LLMEFF_INLINE Vec<T> next_grads(const Arrays<T>& x, int64_t j, int64_t n) {
  if constexpr (kFull)
    if (j + kLanes<T> < x.n) return load(x.g + j + 1);
  return load_part(x.g + j + 1, j + n < x.n ? n : n - 1);
}

// What the update is scaled to (optimizers.md §3.2 step 7), from the new state.
template <Graft kGraft, class T>
LLMEFF_INLINE Vec<T> reference(const Factors<T>& f, Vec<T> g, Vec<T> m, Vec<T> h0, Vec<T> rms) {
  if constexpr (kGraft == Graft::kAdam || kGraft == Graft::kAdamRaw)
    return m * f.reference_m / (square_roots<T>(h0) * f.reference_root + f.reference_eps);
  else if constexpr (kGraft == Graft::kSgd) return g;
  else if constexpr (kGraft == Graft::kMomentum) return m * f.reference_m;
  else return g / (square_roots<T>(rms) + f.reference_eps);
}

// `end` is the end of the chain that holds element j; returns that of element j + n.
template <Graft kGraft, bool kFull, class T>
LLMEFF_INLINE int64_t update_vector(const Factors<T>& f, const Arrays<T>& x, int64_t j, int64_t n, int64_t end, T unit_grad,
                                    SumOfSquares<T>& squares) {
  const Vec<T> g = load_n<kFull>(x.g + j, n) * f.grad_scale;
  const Vec<T> m = average(load_n<kFull>(x.m + j, n), g, f.beta1, f.one_minus_beta1);
  const Vec<T> h0 = average(load_n<kFull>(x.h0 + j, n), g * g, f.beta2, f.one_minus_beta2);
  Vec<T> pairs = g * (next_grads<kFull>(x, j, n) * f.grad_scale);
  for (; end < j + n; end += x.chain) pairs[end - j] = 0;
  const Vec<T> h1 = average(load_n<kFull>(x.h1 + j, n), pairs, f.beta2, f.one_minus_beta2);
  store_n<kFull>(x.m + j, m, n);
  store_n<kFull>(x.h0 + j, h0, n);
  store_n<kFull>(x.h1 + j, h1, n);
  if constexpr (kGraft == Graft::kNone) return end;
  Vec<T> target;
  if constexpr (kGraft == Graft::kRmspropNorm) {
    const Vec<T> unit = g * unit_grad;
    const Vec<T> rms = average(load_n<kFull>(x.rms + j, n), unit * unit, f.beta2, f.one_minus_beta2);
    store_n<kFull>(x.rms + j, rms, n);
    target = reference<kGraft>(f, unit, m, h0, rms);
  } else {
    target = reference<kGraft>(f, g, m, h0, h0);
  }
  if constexpr (!kFull)
    for (int64_t i = n; i < kLanes<T>; ++i) target[i] = 0;  // may be 0 / 0
  squares.add(target);
  return end;
}

// Elements [begin, end) of a tensor; unit_grad is 1/‖g‖ of the whole tensor (Graft::kRmspropNorm only). Returns Σ reference².
template <Graft kGraft, class T>
double update(const Factors<T>& f, const Arrays<T>& x, int64_t begin, int64_t end, T unit_grad) {
  constexpr int64_t kWidth = kLanes<T>;
  SumOfSquares<T> squares;
  int64_t last = chain_end(begin, x.chain);
  int64_t j = begin;
  for (; j + kWidth <= end; j += kWidth) last = update_vector<kGraft, true>(f, x, j, kWidth, last, unit_grad, squares);
  if (j < end) update_vector<kGraft, false>(f, x, j, end - j, last, unit_grad, squares);
  return squares.total();
}

template <class T>
using UpdateFunction = double (*)(const Factors<T>&, const Arrays<T>&, int64_t, int64_t, T);

template <class T>
UpdateFunction<T> update_for(Graft graft) {
  switch (graft) {
    case Graft::kNone: return update<Graft::kNone, T>;
    case Graft::kAdam: return update<Graft::kAdam, T>;
    case Graft::kAdamRaw: return update<Graft::kAdamRaw, T>;
    case Graft::kSgd: return update<Graft::kSgd, T>;
    case Graft::kMomentum: return update<Graft::kMomentum, T>;
    case Graft::kRmspropNorm: break;
  }
  return update<Graft::kRmspropNorm, T>;
}

// The state that update() is about to write at both sides of position j.
template <class T>
Border<T> updated_border(const Factors<T>& f, const Arrays<T>& x, int64_t j) {
  const auto one = [](T value) { return splat<T>(value); };
  const Vec<T> left = one(x.g[j - 1]) * f.grad_scale, right = one(x.g[j]) * f.grad_scale;
  const bool joined = chain_end(j - 1, x.chain) != j - 1;
  return {average(one(x.m[j - 1]), left, f.beta1, f.one_minus_beta1)[0],
          average(one(x.h0[j - 1]), left * left, f.beta2, f.one_minus_beta2)[0],
          average(one(x.h1[j - 1]), joined ? left * right : Vec<T>{}, f.beta2, f.one_minus_beta2)[0],
          average(one(x.m[j]), right, f.beta1, f.one_minus_beta1)[0],
          average(one(x.h0[j]), right * right, f.beta2, f.one_minus_beta2)[0]};
}

template <class T>
Border<T> border_of_state(const Arrays<T>& x, int64_t j) {
  return {x.m[j - 1], x.h0[j - 1], x.h1[j - 1], x.m[j], x.h0[j]};
}

// ---- factor --------------------------------------------------------------------------------------------------------------

// a − ψ·h1 with one rounding: for the rank-one statistics of a first step nearly all of it cancels.
LLMEFF_INLINE Vec<float> schur(Vec<float> a, Vec<float> psi, Vec<float> h1) {
#if defined(__FMA__) || defined(__aarch64__)
  return a - psi * h1;  // contracts
#else
  Vec<float> s;
  for (int64_t i = 0; i < kLanes<float>; ++i) s[i] = static_cast<float>(a[i] - static_cast<double>(psi[i]) * h1[i]);
  return s;
#endif
}
LLMEFF_INLINE Vec<double> schur(Vec<double> a, Vec<double> psi, Vec<double> h1) { return a - psi * h1; }

template <class T>
LLMEFF_INLINE T row_delta(const Factors<T>& f, const T* row_max, int64_t chain) {
  const T delta = f.relative_eps * row_max[chain];
  return delta > f.relative_floor ? delta : f.relative_floor;
}

// δ of each element: one number, or with relative eps that of the element's chain.
template <class T>
LLMEFF_INLINE Vec<T> deltas(const Factors<T>& f, const T* row_max, int64_t j, int64_t n, int64_t chain) {
  if (row_max == nullptr) return splat<T>(f.delta);
  if (j / chain == (j + n - 1) / chain) return splat<T>(row_delta(f, row_max, j / chain));
  Vec<T> v = splat<T>(1);
  for (int64_t i = 0; i < n; ++i) v[i] = row_delta(f, row_max, (j + i) / chain);
  return v;
}

// z and ψ∘z of consecutive elements.
template <class T>
struct Factored {
  Vec<T> z, psi_z;
};

// The new state is given; adds to `dropped` in each of the first n lanes whose edge the stability rule removes.
template <class T>
LLMEFF_INLINE Factored<T> factor(const Factors<T>& f, Vec<T> m, Vec<T> h0, Vec<T> h1, Vec<T> next_m, Vec<T> next_h0, Vec<T> delta,
                                 int64_t n, Mask<T>& dropped) {
  const Vec<T> a = h0 + delta;
  Vec<T> psi = h1 / (next_h0 + delta);
  Vec<T> s = schur(a, psi, h1);
  Mask<T> fails = s <= a * f.gamma + f.gamma_floor;
  for (int64_t i = n; i < kLanes<T>; ++i) fails[i] = 0;
  dropped -= fails;
  psi = fails ? Vec<T>{} : psi;
  s = fails ? a : s;
  const Vec<T> z = (m - psi * next_m) / s;
  return {z, psi * z};
}

// Elements [j, j + n); unless kFull, `after` stands for the state of element j + n.
template <bool kFull, class T>
LLMEFF_INLINE Factored<T> factor_at(const Factors<T>& f, const Arrays<T>& x, const T* row_max, int64_t j, int64_t n,
                                    const Border<T>& after, Mask<T>& dropped) {
  Vec<T> next_m, next_h0;
  if constexpr (kFull) {
    next_m = load(x.m + j + 1);
    next_h0 = load(x.h0 + j + 1);
  } else {
    next_m = load_part(x.m + j + 1, n - 1);
    next_h0 = load_part(x.h0 + j + 1, n - 1);
    next_m[n - 1] = after.after_m;
    next_h0[n - 1] = after.after_h0;
  }
  return factor<T>(f, load_n<kFull>(x.m + j, n), load_n<kFull>(x.h0 + j, n), load_n<kFull>(x.h1 + j, n), next_m, next_h0,
                   deltas(f, row_max, j, n, x.chain), kFull ? kLanes<T> : n, dropped);
}

// ψ·z of the element before j, the first of a chunk.
template <class T>
T psi_z_before(const Factors<T>& f, const Arrays<T>& x, const T* row_max, int64_t j, const Border<T>& border) {
  Mask<T> dropped = {};
  return factor<T>(f, splat<T>(border.before_m), splat<T>(border.before_h0), splat<T>(border.before_h1), splat<T>(border.after_m),
                   splat<T>(border.after_h0), deltas(f, row_max, j - 1, 1, x.chain), 1, dropped)
      .psi_z[0];
}

// z and ψ∘z of one block; psi_z is shifted by one: psi_z[0] belongs to the element before the block.
template <class T>
struct alignas(64) Block {
  T z[kBlock], psi_z[kBlock + 64];
};

// State is read from memory up to element `limit`, whose own is that of `after`.
template <class T>
LLMEFF_INLINE void factor_block(const Factors<T>& f, const Arrays<T>& x, const T* row_max, int64_t begin, int64_t end, int64_t limit,
                                const Border<T>& after, Block<T>& block, Mask<T>& dropped) {
  constexpr int64_t kWidth = kLanes<T>;
  const auto keep = [&](int64_t j, const Factored<T>& factored) {
    store(block.z + (j - begin), factored.z);
    store(block.psi_z + 1 + (j - begin), factored.psi_z);
  };
  int64_t j = begin;
  for (; j + kWidth <= end && j + kWidth < limit; j += kWidth) keep(j, factor_at<true>(f, x, row_max, j, kWidth, after, dropped));
  if (j < end) keep(j, factor_at<false>(f, x, row_max, j, end - j, after, dropped));
}

template <bool kFull, class T>
LLMEFF_INLINE void apply_vector(T* p, Vec<T> u, T keep, T rate, int64_t n) {
  store_n<kFull>(p, load_n<kFull>(p, n) * keep - u * rate, n);
}

// p ← keep·p − rate·u over a block.
template <class T>
LLMEFF_INLINE void apply_block(const Block<T>& block, T* p, int64_t n, T keep, T rate) {
  constexpr int64_t kWidth = kLanes<T>;
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) apply_vector<true>(p + i, load(block.z + i) - load(block.psi_z + i), keep, rate, kWidth);
  if (i < n) apply_vector<false>(p + i, load(block.z + i) - load(block.psi_z + i), keep, rate, n - i);
}

template <class T>
LLMEFF_INLINE void square_block(const Block<T>& block, int64_t n, SumOfSquares<T>& squares) {
  constexpr int64_t kWidth = kLanes<T>;
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) squares.add(load(block.z + i) - load(block.psi_z + i));
  if (i < n) squares.add(load_part(block.z + i, n - i) - load_part(block.psi_z + i, n - i));
}

template <class T>
int64_t sum_lanes(Mask<T> v) {
  int64_t total = 0;
  for (int64_t i = 0; i < kLanes<T>; ++i) total += v[i];
  return total;
}

// ---- relative eps --------------------------------------------------------------------------------------------------------

// A chain may belong to several chunks; a maximum does not depend on who comes first.
template <class T>
LLMEFF_INLINE void raise_to(T* target, T value) {
  T seen;
  __atomic_load(target, &seen, __ATOMIC_RELAXED);
  while (seen < value && !__atomic_compare_exchange(target, &seen, &value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// Raises row_max[chain] to the largest row sum |h1_{j−1}| + h0_j + |h1_j| of the chain's elements in [begin, end).
template <class T>
void row_sums(const Arrays<T>& x, int64_t begin, int64_t end, T* row_max) {
  constexpr int64_t kWidth = kLanes<T>;
  for (int64_t j = begin; j < end;) {
    const int64_t last = chain_end(j, x.chain), stop = last + 1 < end ? last + 1 : end;
    T largest = x.h0[j] + vabs<T>(splat<T>(x.h1[j]))[0] + (j > 0 ? vabs<T>(splat<T>(x.h1[j - 1]))[0] : T{0});
    const int64_t chain = j / x.chain;
    Vec<T> largest_lanes = {};
    for (++j; j < stop; j += kWidth) {
      const int64_t n = stop - j < kWidth ? stop - j : kWidth;
      largest_lanes = n == kWidth ? vmax(vabs<T>(load(x.h1 + j - 1)) + load(x.h0 + j) + vabs<T>(load(x.h1 + j)), largest_lanes)
                                  : vmax(vabs<T>(load_part(x.h1 + j - 1, n)) + load_part(x.h0 + j, n) + vabs<T>(load_part(x.h1 + j, n)), largest_lanes);
    }
    j = stop;
    const T others = reduce_max<T>(largest_lanes);
    raise_to(row_max + chain, others > largest ? others : largest);
  }
}

// ---- the step ------------------------------------------------------------------------------------------------------------

LLMEFF_INLINE int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class T>
struct Step {
  Factors<T> f;
  Graft graft;
  bool relative_eps;
  double lr, update_scale;  // update_scale: what bias correction multiplies u by
  Arrays<T>* tensors;
  Chunk* chunks;
  Border<T>* borders;      // [chunk]: at its begin, unless that is the tensor's
  Sums* sums;              // [chunk]
  double *unit_grad, *rate;  // [tensor]
  int64_t* first_chunk;    // [tensor + 1]
  T* row_max;              // [chain of the batch], with relative eps
  int64_t* first_chain;    // [tensor]

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

  void update_chunk(int64_t i) {
    const Chunk& c = chunks[i];
    sums[i].reference = update_for<T>(graft)(f, tensors[c.tensor], c.begin, c.end, static_cast<T>(unit_grad[c.tensor]));
  }

  // Update and factor block by block. The update runs ahead of the factor by at least one element.
  template <bool kApply>
  void update_and_factor_chunk(int64_t i) {
    const Chunk& c = chunks[i];
    const Arrays<T>& x = tensors[c.tensor];
    const UpdateFunction<T> update_range = update_for<T>(graft);
    int64_t updated = c.begin;
    factor_blocks<kApply>(i, c.begin > 0 ? borders[i] : Border<T>{}, c.end, c.end < x.n ? borders[i + 1] : Border<T>{}, [&](int64_t needed) {
      const int64_t end = needed + kLanes<T> < c.end ? needed + kLanes<T> : c.end;
      sums[i].reference += update_range(f, x, updated, end, static_cast<T>(unit_grad[c.tensor]));
      updated = end;
    });
  }

  // The state is new everywhere.
  template <bool kApply>
  void factor_chunk(int64_t i) {
    const Chunk& c = chunks[i];
    const Arrays<T>& x = tensors[c.tensor];
    factor_blocks<kApply>(i, c.begin > 0 ? border_of_state(x, c.begin) : Border<T>{}, x.n, Border<T>{}, [](int64_t) {});
  }

  template <bool kApply, class Prepare>
  LLMEFF_INLINE void factor_blocks(int64_t i, const Border<T>& before, int64_t limit, const Border<T>& after, const Prepare& prepare) {
    const Chunk& c = chunks[i];
    const Arrays<T>& x = tensors[c.tensor];
    const T* const maxima = row_max_of(c.tensor);
    Block<T> block;
    block.psi_z[0] = c.begin > 0 ? psi_z_before(f, x, maxima, c.begin, before) : T{0};
    SumOfSquares<T> squares;
    int64_t dropped = 0;
    for (int64_t begin = c.begin; begin < c.end; begin += kBlock) {
      const int64_t end = begin + kBlock < c.end ? begin + kBlock : c.end;
      prepare(end);
      Mask<T> failed = {};
      factor_block(f, x, maxima, begin, end, limit, after, block, failed);
      dropped += sum_lanes<T>(failed);
      if constexpr (kApply) apply_block(block, x.p + begin, end - begin, f.keep, static_cast<T>(rate[c.tensor]));
      else square_block(block, end - begin, squares);
      block.psi_z[0] = block.psi_z[kBlock];
    }
    sums[i].dropped = dropped;
    if constexpr (!kApply) sums[i].update = squares.total();
  }

  void prepare_border(int64_t i) {
    const Chunk& c = chunks[i];
    if (c.begin > 0) borders[i] = updated_border(f, tensors[c.tensor], c.begin);
  }

  // One batch: whole tensors [from, to).
  void run(int64_t from, int64_t to) {
    const int64_t first = first_chunk[from], count = first_chunk[to] - first;
    const bool grafts = graft != Graft::kNone;
    for (int64_t i = first; i < first + count; ++i) sums[i] = {};
    for (int64_t t = from; t < to; ++t) rate[t] = lr * update_scale;
    if (graft == Graft::kRmspropNorm) {
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
      parallel_for(count, [&](int64_t i, int) { update_chunk(first + i); });
      parallel_for(count, [&](int64_t i, int) {
        const Chunk& c = chunks[first + i];
        row_sums(tensors[c.tensor], c.begin, c.end, row_max + first_chain[c.tensor]);
      });
      parallel_for(count, [&](int64_t i, int) { grafts ? factor_chunk<false>(first + i) : factor_chunk<true>(first + i); });
    } else {
      for (int64_t i = first; i < first + count; ++i) prepare_border(i);
      parallel_for(count, [&](int64_t i, int) {
        grafts ? update_and_factor_chunk<false>(first + i) : update_and_factor_chunk<true>(first + i);
      });
    }
    if (!grafts) return;
    for (int64_t t = from; t < to; ++t) {
      const double norm = __builtin_sqrt(total(t, &Sums::update));
      rate[t] = norm == 0 ? 0.0 : lr * __builtin_sqrt(total(t, &Sums::reference)) / norm;
    }
    parallel_for(count, [&](int64_t i, int) { factor_chunk<true>(first + count - 1 - i); });
  }

  double total(int64_t tensor, double Sums::*what) const {
    double sum = 0;
    for (int64_t i = first_chunk[tensor]; i < first_chunk[tensor + 1]; ++i) sum += sums[i].*what;
    return sum;
  }
};

}  // namespace

void CpuKernels::sonew_step(const List<InOut>& params, const List<In>& grads, const List<InOut>& m, const List<InOut>& h0,
                            const List<InOut>& h1, const List<InOut>& rms, const List<int64_t>& chain_length, const In& grad_scale,
                            double lr, double beta1, double beta2, double eps, bool relative_eps, double gamma, bool absolute_gamma,
                            Graft graft, double graft_eps, bool bias_correction, double weight_decay, int64_t step,
                            const InOut& dropped) {
  const double scale = read_scale(grad_scale);
  if (!is_finite(scale) || params.size == 0) return;
  const double t = static_cast<double>(step);
  const double c1 = bias_correction ? 1.0 - __builtin_pow(beta1, t) : 1.0;
  const double c2 = bias_correction ? 1.0 - __builtin_pow(beta2, t) : 1.0;

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
    s.lr = lr;
    s.update_scale = c2 / c1;

    const int64_t tensors = params.size, chunks = count_chunks(params);
    int64_t chains = 0;
    if (relative_eps)
      for (int64_t i = 0; i < tensors; ++i) chains += chain_length[i] > 0 ? (params[i].size() + chain_length[i] - 1) / chain_length[i] : 1;
    int64_t bytes = 0;
    const auto take = [&](int64_t size) {
      const int64_t at = bytes;
      bytes += aligned(size);
      return at;
    };
    const int64_t at_tensors = take(tensors * sizeof(Arrays<T>)), at_chunks = take(chunks * sizeof(Chunk));
    const int64_t at_borders = take(chunks * sizeof(Border<T>)), at_sums = take(chunks * sizeof(Sums));
    const int64_t at_unit = take(tensors * sizeof(double)), at_rate = take(tensors * sizeof(double));
    const int64_t at_first_chunk = take((tensors + 1) * sizeof(int64_t)), at_first_chain = take(tensors * sizeof(int64_t));
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
      s.tensors[i] = {params[i].as<T>(), grads[i].as<T>(), m[i].as<T>(), h0[i].as<T>(), h1[i].as<T>(),
                      rms.size > 0 ? rms[i].as<T>() : nullptr, n, chain > 0 ? chain : (n > 0 ? n : 1)};
      s.first_chunk[i + 1] = s.first_chunk[i] + chunks_of(n);
      s.unit_grad[i] = 0;
    }
    int64_t from = 0, elements = 0;
    for (int64_t i = 0; i < tensors; ++i) {
      elements += s.tensors[i].n;
      if (elements < kBatch && i + 1 < tensors) continue;
      s.run(from, i + 1);
      from = i + 1;
      elements = 0;
    }
    if (dropped.present())
      for (int64_t i = 0; i < chunks; ++i) *dropped.as<double>() += static_cast<double>(s.sums[i].dropped);
  };
  if (params[0].dtype == DType::kF64) run(double{});
  else run(float{});
}

}  // namespace llmeff::cpu::LLMEFF_ISA
