// From SONew's statistics to its update u = L·D·Lᵀ·m in one stream from left to right: u_j = z_j − ψ_{j−1}·z_{j−1}. The
// neighbours of a vector are those that the loop holds in registers. Without edges ψ is 0. See sonew.cc for the method.
#pragma once

#include "sonew_update.h"

namespace llmeff::cpu::LLMEFF_ISA::sonew {
namespace {

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

// Adds to `dropped` in each of the first n lanes whose edge the stability rule removes.
template <bool kEdges, class T>
LLMEFF_INLINE Factored<T> factor(const Factors<T>& f, const State<T>& at, Vec<T> next_m, Vec<T> next_h0, Vec<T> delta,
                                 int64_t n, Mask<T>& dropped) {
  const Vec<T> a = at.h0 + delta;
  Vec<T> psi = {}, s = a;
  if constexpr (kEdges) {
    psi = at.h1 / (next_h0 + delta);
    s = minus_product(a, psi, at.h1);
  }
  Mask<T> fails = s <= a * f.gamma + f.gamma_floor;
  for (int64_t i = n; i < kLanes<T>; ++i) fails[i] = 0;
  dropped -= fails;
  if constexpr (!kEdges) return {at.m / a, Vec<T>{}};
  psi = fails ? Vec<T>{} : psi;
  s = fails ? a : s;
  const Vec<T> z = (at.m - psi * next_m) / s;
  return {z, psi * z};
}

// ψ·z of the element before j, the first of a chunk.
template <class T>
T psi_z_before(const Factors<T>& f, const Arrays<T>& x, const T* row_max, int64_t j, const Border<T>& border) {
  const State<T> before = {splat<T>(border.before_m), splat<T>(border.before_h0), splat<T>(border.before_h1)};
  Mask<T> dropped = {};
  return factor<true, T>(f, before, splat<T>(border.after_m), splat<T>(border.after_h0),
                         deltas(f, row_max, j - 1, 1, x.chain), 1, dropped)
      .psi_z[0];
}

// kLanes lanes of a and then b, from lane `first` of a.
template <class T>
LLMEFF_INLINE Vec<T> lanes_from(Vec<T> a, Vec<T> b, int64_t first) {
#if defined(__clang__)
  Vec<T> v;
  for (int64_t i = 0; i < kLanes<T>; ++i) v[i] = i + first < kLanes<T> ? a[i + first] : b[i + first - kLanes<T>];
  return v;
#else
  Mask<T> from = {};
  for (int64_t i = 0; i < kLanes<T>; ++i) from[i] = i + first;
  return __builtin_shuffle(a, b, from);
#endif
}

// v moved by one lane, with that of the following vector at its end or that of the preceding one at its beginning. SSE2
// has nothing that shifts two registers; GCC makes of four lanes two instructions when they are put like this.
template <class T>
LLMEFF_INLINE Vec<T> one_later(Vec<T> v, Vec<T> next) {
  if constexpr (kLanes<T> == 4) {
    v[0] = next[0];
    return lanes_from<T>(v, v, 1);
  } else {
    return lanes_from<T>(v, next, 1);
  }
}
template <class T>
LLMEFF_INLINE Vec<T> one_earlier(Vec<T> before, Vec<T> v) {
  if constexpr (kLanes<T> == 4) {
    Vec<T> moved = lanes_from<T>(v, v, 3);
    moved[0] = before[3];
    return moved;
  } else {
    return lanes_from<T>(before, v, kLanes<T> - 1);
  }
}

template <class T>
int64_t sum_lanes(Mask<T> v) {
  int64_t total = 0;
  for (int64_t i = 0; i < kLanes<T>; ++i) total += v[i];
  return total;
}

// What lies left and right of a chunk: ψ·z of the element before, and the state of the one after.
template <class T>
struct Surroundings {
  T psi_z, next_m, next_h0;
};

// Calls use(j, n, u) for each vector of elements [begin, end), from left to right. state(j, n), one vector ahead of it,
// gives the state of elements [j, j + n). Both have a parameter kFull: n = kLanes. Returns the number of dropped edges.
template <bool kEdges, class T, class StateAt, class Use>
LLMEFF_INLINE int64_t factor_range(const Factors<T>& f, const Arrays<T>& x, const T* row_max, int64_t begin,
                                   int64_t end, const Surroundings<T>& around, const StateAt& state, const Use& use) {
  constexpr int64_t kWidth = kLanes<T>;
  Mask<T> dropped = {};
  Vec<T> psi_z = splat(around.psi_z);
  const auto step = [&]<bool kFull>(int64_t j, int64_t n, const State<T>& at,
                                    const State<T>& next) __attribute__((always_inline)) {
    const Factored<T> made = factor<kEdges, T>(f, at, one_later<T>(at.m, next.m), one_later<T>(at.h0, next.h0),
                                               deltas(f, row_max, j, n, x.chain), kFull ? kWidth : n, dropped);
    use.template operator()<kFull>(j, n, made.z - one_earlier<T>(psi_z, made.psi_z));
    psi_z = made.psi_z;
  };

  State<T> at = {};
  int64_t j = begin;
  if (begin + kWidth <= end) at = state.template operator()<true>(j, kWidth);
  for (; j + 2 * kWidth <= end; j += kWidth) {
    const State<T> next = state.template operator()<true>(j + kWidth, kWidth);
    step.template operator()<true>(j, kWidth, at, next);
    at = next;
  }
  // Less than two vectors are left, and the element after them.
  const int64_t whole = end - j < kWidth ? 0 : kWidth, rest = end - j - whole;
  State<T> last = {};
  if (rest > 0) last = state.template operator()<false>(j + whole, rest);
  last.m[rest] = around.next_m;
  last.h0[rest] = around.next_h0;
  if (whole > 0) step.template operator()<true>(j, kWidth, at, last);
  if (rest > 0) step.template operator()<false>(j + whole, rest, last, State<T>{});
  return sum_lanes<T>(dropped);
}

// Raises row_max[chain] to the largest row sum |h1_{j−1}| + h0_j + |h1_j| of the chain's elements in [begin, end).
template <bool kEdges, class T>
void row_sums(const Arrays<T>& x, int64_t begin, int64_t end, T* row_max) {
  constexpr int64_t kWidth = kLanes<T>;
  for (int64_t j = begin; j < end;) {
    const int64_t last = chain_end(j, x.chain), stop = last + 1 < end ? last + 1 : end;
    T largest = x.h0[j];
    if constexpr (kEdges) largest += vabs<T>(splat<T>(x.h1[j]))[0] + (j > 0 ? vabs<T>(splat<T>(x.h1[j - 1]))[0] : T{0});
    const int64_t chain = j / x.chain;
    Vec<T> largest_lanes = {};
    const auto sums = [&]<bool kFull>(int64_t at, int64_t n) {
      const Vec<T> h0 = load_n<kFull>(x.h0 + at, n);
      if constexpr (!kEdges)
        return h0;
      else
        return vabs<T>(load_n<kFull>(x.h1 + at - 1, n)) + h0 + vabs<T>(load_n<kFull>(x.h1 + at, n));
    };
    for (++j; j + kWidth <= stop; j += kWidth)
      largest_lanes = vmax(sums.template operator()<true>(j, kWidth), largest_lanes);
    if (j < stop) largest_lanes = vmax(sums.template operator()<false>(j, stop - j), largest_lanes);
    j = stop;
    const T others = reduce_max<T>(largest_lanes);
    raise_to(row_max + chain, others > largest ? others : largest);
  }
}

}  // namespace
}  // namespace llmeff::cpu::LLMEFF_ISA::sonew
