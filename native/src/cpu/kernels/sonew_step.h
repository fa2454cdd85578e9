// What the two paths of SONew share: the constants of a step, the averages, what grafting scales to, and the order of
// the passes over a batch of tensors. A path (Tridiagonal, Banded) has the passes themselves, each over one chunk:
//
//   sum_grads(i)             adds to sums[i].grad the squares of the gradients
//   prepare_border(i)        the new state around the begin of chunk i, before any of it is overwritten
//   update_and_factor(i)     state in place and u from it, which is applied to p, or with a graft only summed
//   update(i), row_sums(i), factor_state(i)     the same in three passes, for relative eps: δ needs all of the new
//   state apply(i)                 with a graft, when its factor is known
#pragma once

#include "llmeff/kernels.h"
#include "llmeff/parallel.h"
#include "multi_tensor.h"

namespace llmeff::cpu::LLMEFF_ISA::sonew {
namespace {  // parallel_for of a lambda of another namespace is a weak symbol of every instruction set

// Elements of a batch of tensors whose passes follow each other while their arrays are still in the shared cache.
inline constexpr int64_t kBatch = 1 << 18;
inline constexpr int64_t kMostBand = 10;

// 32 cache lines: nearer ones come too late, farther ones may be gone again.
template <class T>
inline constexpr int64_t kAhead = 2048 / static_cast<int64_t>(sizeof(T));
template <class T>
LLMEFF_INLINE void fetch(const T* p) {
  __builtin_prefetch(p + kAhead<T>);
}

template <class T>
struct Factors {
  T grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, delta, relative_eps, relative_floor, gamma, gamma_floor;
  T reference_m, reference_root, reference_eps, keep;
  T pivot_floor;  // a pivot of at most this part of its diagonal may be rounding alone
};

struct Sums {
  double grad = 0, reference = 0, update = 0;
  int64_t dropped = 0;
};

// The last element of the chain that holds element j.
LLMEFF_INLINE int64_t chain_end(int64_t j, int64_t chain) {
  return j / chain * chain + chain - 1;
}

template <class T>
LLMEFF_INLINE Vec<T> average(Vec<T> old, Vec<T> sample, T beta, T rest) {
  return old * beta + sample * rest;
}

// a − x·y with one rounding: for the rank-one statistics of a first step nearly all of it cancels.
LLMEFF_INLINE Vec<float> minus_product(Vec<float> a, Vec<float> x, Vec<float> y) {
#if defined(__FMA__) || defined(__aarch64__)
  return a - x * y;  // contracts
#else
  Vec<float> s;
  for (int64_t i = 0; i < kLanes<float>; ++i) s[i] = static_cast<float>(a[i] - static_cast<double>(x[i]) * y[i]);
  return s;
#endif
}
LLMEFF_INLINE Vec<double> minus_product(Vec<double> a, Vec<double> x, Vec<double> y) {
  return a - x * y;
}

template <class T>
LLMEFF_INLINE T row_delta(const Factors<T>& f, const T* row_max, int64_t chain) {
  const T delta = f.relative_eps * row_max[chain];
  return delta > f.relative_floor ? delta : f.relative_floor;
}

// A chain may belong to several chunks; a maximum does not depend on who comes first.
template <class T>
LLMEFF_INLINE void raise_to(T* target, T value) {
  T seen;
  __atomic_load(target, &seen, __ATOMIC_RELAXED);
  while (seen < value && !__atomic_compare_exchange(target, &seen, &value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// What the update is scaled to, from the new state.
template <Graft kGraft, class T>
LLMEFF_INLINE Vec<T> reference(const Factors<T>& f, Vec<T> g, Vec<T> m, Vec<T> h0, Vec<T> rms) {
  if constexpr (kGraft == Graft::kAdam || kGraft == Graft::kAdamRaw)
    return m * f.reference_m / (square_roots<T>(h0) * f.reference_root + f.reference_eps);
  else if constexpr (kGraft == Graft::kSgd)
    return g;
  else if constexpr (kGraft == Graft::kMomentum)
    return m * f.reference_m;
  else
    return g / (square_roots<T>(rms) + f.reference_eps);
}

// body.template operator()<graft>()
template <class F>
LLMEFF_INLINE void with_graft(Graft graft, const F& body) {
  switch (graft) {
    case Graft::kNone:
      return body.template operator()<Graft::kNone>();
    case Graft::kAdam:
      return body.template operator()<Graft::kAdam>();
    case Graft::kAdamRaw:
      return body.template operator()<Graft::kAdamRaw>();
    case Graft::kSgd:
      return body.template operator()<Graft::kSgd>();
    case Graft::kMomentum:
      return body.template operator()<Graft::kMomentum>();
    case Graft::kRmspropNorm:
      return body.template operator()<Graft::kRmspropNorm>();
  }
}

// Parts of one block of memory, each to 64 bytes. Without a block it only adds up what they take.
class Layout {
 public:
  explicit Layout(char* memory) : memory_(memory) {}
  template <class V>
  V* take(int64_t count) {
    V* const part = memory_ == nullptr ? nullptr : reinterpret_cast<V*>(memory_ + bytes_);
    bytes_ += (count * static_cast<int64_t>(sizeof(V)) + 63) / 64 * 64;
    return part;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  int64_t bytes_ = 0;
};

// The arguments of a step that are lists. h: the diagonals, h[k·params.size + i].
struct Lists {
  const List<InOut>&params, &copies;
  const List<In>& grads;
  const List<InOut>&m, &h, &rms;
  const List<int64_t>&chain_length, &rounding_ids;

  int64_t band() const { return h.size / params.size - 1; }
  int64_t size(int64_t tensor) const { return params[tensor].size(); }
  // Elements of a chain; never 0.
  int64_t chain(int64_t tensor) const {
    return chain_length[tensor] > 0 ? chain_length[tensor] : (size(tensor) > 0 ? size(tensor) : 1);
  }
};

template <class T>
struct Step {
  const Lists* lists;
  Factors<T> f;
  Graft graft;
  bool relative_eps;
  double lr, update_scale;  // update_scale: what bias correction multiplies u by
  Chunk* chunks;
  Sums* sums;                // [chunk]
  double *unit_grad, *rate;  // [tensor]
  int64_t* first_chunk;      // [tensor + 1]
  T* row_max;                // [chain of the batch], with relative eps
  int64_t* first_chain;      // [tensor]

  bool grafts() const { return graft != Graft::kNone; }
  int64_t tensors() const { return lists->params.size; }
  const T* row_max_of(int64_t tensor) const { return relative_eps ? row_max + first_chain[tensor] : nullptr; }

  void lay_out(Layout& memory) {
    const int64_t chunk_count = count_chunks(lists->params);
    int64_t chains = 0;
    if (relative_eps)
      for (int64_t i = 0; i < tensors(); ++i) chains += (lists->size(i) + lists->chain(i) - 1) / lists->chain(i);
    chunks = memory.take<Chunk>(chunk_count);
    sums = memory.take<Sums>(chunk_count);
    unit_grad = memory.take<double>(tensors());
    rate = memory.take<double>(tensors());
    first_chunk = memory.take<int64_t>(tensors() + 1);
    first_chain = memory.take<int64_t>(tensors());
    row_max = memory.take<T>(chains);
  }

  void prepare() {
    cut_into_chunks(lists->params, chunks);
    first_chunk[0] = 0;
    for (int64_t i = 0; i < tensors(); ++i) {
      first_chunk[i + 1] = first_chunk[i] + chunks_of(lists->size(i));
      unit_grad[i] = 0;
    }
  }

  // At least the elements of any batch: one ends with the tensor that makes it kBatch or more.
  int64_t largest_batch() const {
    int64_t all = 0, most = 0;
    for (int64_t i = 0; i < tensors(); ++i) {
      all += lists->size(i);
      most = lists->size(i) > most ? lists->size(i) : most;
    }
    return all < kBatch + most ? all : kBatch + most;
  }

  double total(int64_t tensor, double Sums::* what) const {
    double sum = 0;
    for (int64_t i = first_chunk[tensor]; i < first_chunk[tensor + 1]; ++i) sum += sums[i].*what;
    return sum;
  }

  // Whole tensors [from, to).
  template <class Path>
  void run_batch(Path& path, int64_t from, int64_t to) {
    const int64_t first = first_chunk[from], count = first_chunk[to] - first;
    for (int64_t i = first; i < first + count; ++i) sums[i] = {};
    for (int64_t t = from; t < to; ++t) rate[t] = lr * update_scale;
    if (graft == Graft::kRmspropNorm) {
      parallel_for(count, [&](int64_t i, int) { path.sum_grads(first + i); });
      for (int64_t t = from; t < to; ++t) unit_grad[t] = 1.0 / (__builtin_sqrt(total(t, &Sums::grad)) + 1e-16);
    }
    if (relative_eps) {
      int64_t chains = 0;
      for (int64_t t = from; t < to; ++t) {
        first_chain[t] = chains;
        chains += (lists->size(t) + lists->chain(t) - 1) / lists->chain(t);
      }
      for (int64_t i = 0; i < chains; ++i) row_max[i] = 0;
      parallel_for(count, [&](int64_t i, int worker) { path.update(first + i, worker); });
      parallel_for(count, [&](int64_t i, int worker) { path.row_sums(first + i, worker); });
      parallel_for(count, [&](int64_t i, int worker) { path.factor_state(first + i, worker); });
    } else {
      path.prepare_borders(first, count);
      parallel_for(count, [&](int64_t i, int worker) { path.update_and_factor(first + i, worker); });
    }
    if (!grafts()) return;
    for (int64_t t = from; t < to; ++t) {
      const double norm = __builtin_sqrt(total(t, &Sums::update));
      rate[t] = norm == 0 ? 0.0 : lr * __builtin_sqrt(total(t, &Sums::reference)) / norm;
    }
    // Backwards, to meet what the passes before left in the caches.
    parallel_for(count, [&](int64_t i, int) { path.apply(first + count - 1 - i); });
  }

  template <class Path>
  void run(Path& path) {
    int64_t from = 0, elements = 0;
    for (int64_t i = 0; i < tensors(); ++i) {
      elements += lists->size(i);
      if (elements < kBatch && i + 1 < tensors()) continue;
      path.begin_batch(from, i + 1);
      run_batch(path, from, i + 1);
      from = i + 1;
      elements = 0;
    }
  }
};

}  // namespace
}  // namespace llmeff::cpu::LLMEFF_ISA::sonew
