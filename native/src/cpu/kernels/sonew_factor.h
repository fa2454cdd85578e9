// From SONew's statistics to its update u = L·D·Lᵀ·m, block by block: z first, then u_j = z_j − ψ_{j−1}·z_{j−1}. See
// sonew.cc for the method.
#pragma once

#include "sonew_update.h"

namespace llmeff::cpu::LLMEFF_ISA::sonew {

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
LLMEFF_INLINE Vec<double> schur(Vec<double> a, Vec<double> psi, Vec<double> h1) {
  return a - psi * h1;
}

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
LLMEFF_INLINE Factored<T> factor(const Factors<T>& f, Vec<T> m, Vec<T> h0, Vec<T> h1, Vec<T> next_m, Vec<T> next_h0,
                                 Vec<T> delta, int64_t n, Mask<T>& dropped) {
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
  return factor<T>(f, load_n<kFull>(x.m + j, n), load_n<kFull>(x.h0 + j, n), load_n<kFull>(x.h1 + j, n), next_m,
                   next_h0, deltas(f, row_max, j, n, x.chain), kFull ? kLanes<T> : n, dropped);
}

// ψ·z of the element before j, the first of a chunk.
template <class T>
T psi_z_before(const Factors<T>& f, const Arrays<T>& x, const T* row_max, int64_t j, const Border<T>& border) {
  Mask<T> dropped = {};
  return factor<T>(f, splat<T>(border.before_m), splat<T>(border.before_h0), splat<T>(border.before_h1),
                   splat<T>(border.after_m), splat<T>(border.after_h0), deltas(f, row_max, j - 1, 1, x.chain), 1,
                   dropped)
      .psi_z[0];
}

// Elements that are factored before they are used: z and ψ∘z of them stay in the first-level cache.
inline constexpr int64_t kBlock = 512;
static_assert(kChunk % kBlock == 0);

// z and ψ∘z of one block; psi_z is shifted by one: psi_z[0] belongs to the element before the block.
template <class T>
struct alignas(64) Block {
  T z[kBlock], psi_z[kBlock + 64];
};

// Asks for a vector of what the next block needs, so that memory works while this one is factored.
template <bool kUpdate, bool kApply, class T>
LLMEFF_INLINE void prefetch_next_block(const Arrays<T>& x, int64_t j) {
  const int64_t next = j + kBlock;
  if (next >= x.n) return;
  if constexpr (kUpdate) __builtin_prefetch(x.g + next);
  if constexpr (kApply) __builtin_prefetch(x.p + next);
  __builtin_prefetch(x.m + next);
  __builtin_prefetch(x.h0 + next);
  __builtin_prefetch(x.h1 + next);
}

// State is read from memory up to element `limit`, whose own is that of `after`.
template <bool kUpdate, bool kApply, class T>
LLMEFF_INLINE void factor_block(const Factors<T>& f, const Arrays<T>& x, const T* row_max, int64_t begin, int64_t end,
                                int64_t limit, const Border<T>& after, Block<T>& block, Mask<T>& dropped) {
  constexpr int64_t kWidth = kLanes<T>;
  const auto keep = [&](int64_t j, const Factored<T>& factored) {
    store(block.z + (j - begin), factored.z);
    store(block.psi_z + 1 + (j - begin), factored.psi_z);
  };
  int64_t j = begin;
  for (; j + kWidth <= end && j + kWidth < limit; j += kWidth) {
    prefetch_next_block<kUpdate, kApply>(x, j);
    keep(j, factor_at<true>(f, x, row_max, j, kWidth, after, dropped));
  }
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
  for (; i + kWidth <= n; i += kWidth)
    apply_vector<true>(p + i, load(block.z + i) - load(block.psi_z + i), keep, rate, kWidth);
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
    const auto sums = [&]<bool kFull>(int64_t at, int64_t n) {
      return vabs<T>(load_n<kFull>(x.h1 + at - 1, n)) + load_n<kFull>(x.h0 + at, n) +
             vabs<T>(load_n<kFull>(x.h1 + at, n));
    };
    for (++j; j + kWidth <= stop; j += kWidth)
      largest_lanes = vmax(sums.template operator()<true>(j, kWidth), largest_lanes);
    if (j < stop) largest_lanes = vmax(sums.template operator()<false>(j, stop - j), largest_lanes);
    j = stop;
    const T others = reduce_max<T>(largest_lanes);
    raise_to(row_max + chain, others > largest ? others : largest);
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA::sonew
