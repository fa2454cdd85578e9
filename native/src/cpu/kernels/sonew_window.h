// The factorisation of banded SONew, element by element: the window of element j is the matrix H[j … j+b, j … j+b],
// whose upper triangle lies in b + 1 diagonals. Eliminating its vertices from the last to the second (H = U·D·Uᵀ with U
// unit upper triangular) leaves the Schur complement S_j as the first pivot, and the first row of U⁻¹ is L[j … j+b, j].
// b³/6 fused multiply-adds, no determinants and no inverses: those lose what is left of the rank-one statistics of a
// first step. Nothing depends on the window before, so lanes are neighbouring elements.
//
// A pivot that is not above the rounding error of its diagonal says nothing: that vertex is left out of the window. X
// stays positive definite with any L and any D > 0, and S_j only grows.
#pragma once

#include <utility>

#include "sonew_step.h"

namespace llmeff::cpu::LLMEFF_ISA::sonew {
namespace {

// Elements that are worked on together, the first of them at kLead; before it are up to kMostBand of the elements
// before, after them those that the last windows need. Every row has room for whole vectors.
inline constexpr int64_t kTile = 512, kLead = 16, kLookahead = 32, kRoom = kLead + kTile + 2 * kLookahead + 32;

template <class T>
struct Tile {
  alignas(64) T g[kRoom];               // gradients, scaled
  T m[kRoom], h[kMostBand + 1][kRoom];  // new state; h[0] with δ once that was added
  T left[kRoom];                        // elements until the chain's end, where there are several chains
  T z[kRoom], y[kMostBand][kRoom];      // D∘w, and L[j+k, j]·z_j at y[k−1]
  T failed[kRoom];                      // 1: the stability rule drops the edges of this element
  uint32_t words[1024];                 // random numbers of a row
};

// f(0), …, f(N − 1) with constants.
template <int N, class F>
LLMEFF_INLINE void static_for(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

template <int B, class T>
struct Column {
  Vec<T> schur, l[B + 1];  // l[0] is 1
};

// Of the elements at q. kCut: no window reaches the first failing element after its own.
//
// Column by column, each entry in one go: entries are written once, where the usual order, row updates of all that is
// left, would write each of them up to b times, and a window of 66 vectors doesn't fit in registers.
template <int B, bool kCut, class T>
LLMEFF_INLINE Column<B, T> eliminate(const Factors<T>& f, const Tile<T>& tile, int64_t q) {
  Vec<T> cut[B + 1];  // kCut: 1 where no element up to this one, after the first, failed
  if constexpr (kCut) {
    cut[0] = splat<T>(1);
    static_for<B>([&](auto step) __attribute__((always_inline)) {
      constexpr int c = decltype(step)::value + 1;
      cut[c] = load(tile.failed + q + c) > T{0} ? Vec<T>{} : cut[c - 1];
    });
  }
  // at[r][c] = U[r][c]·D[c], inverse[c] = 1 / D[c]
  Vec<T> at[B + 1][B + 1], inverse[B + 1];
  Column<B, T> made;
  static_for<B + 1>([&](auto step) __attribute__((always_inline)) {
    constexpr int p = B - decltype(step)::value;
    Vec<T> row[B + 1];  // U[p][c] of the columns that are done
    static_for<B - p>([&](auto column) __attribute__((always_inline)) {
      constexpr int c = p + 1 + decltype(column)::value;
      row[c] = at[p][c] * inverse[c];
    });
    const auto less_done = [&](Vec<T> entry, auto r) __attribute__((always_inline)) {
      static_for<B - p>([&](auto column) __attribute__((always_inline)) {
        constexpr int c = B - decltype(column)::value;
        entry = minus_product(entry, at[decltype(r)::value][c], row[c]);
      });
      return entry;
    };
    const Vec<T> diagonal = load(tile.h[0] + q + p);
    const Vec<T> pivot = less_done(diagonal, std::integral_constant<int, p>{});
    if constexpr (p == 0)
      made.schur = pivot;
    else
      inverse[p] = pivot > diagonal * f.pivot_floor ? T{1} / pivot : Vec<T>{};
    static_for<p>([&](auto step_up) __attribute__((always_inline)) {
      constexpr int r = p - 1 - decltype(step_up)::value;
      Vec<T> entry = load(tile.h[p - r] + q + r);
      if constexpr (kCut) entry *= cut[p];
      at[r][p] = less_done(entry, std::integral_constant<int, r>{});
    });
  });
  static_for<B>([&](auto step) __attribute__((always_inline)) {
    constexpr int p = decltype(step)::value + 1;
    Vec<T> l = -at[0][p];
    static_for<p - 1>([&](auto before) __attribute__((always_inline)) {
      constexpr int r = decltype(before)::value + 1;
      l = minus_product(l, made.l[r], at[r][p]);
    });
    made.l[p] = l * inverse[p];
  });
  return made;
}

// Where the stability rule drops edges; NaN does not pass.
template <class T>
LLMEFF_INLINE Mask<T> passes(const Factors<T>& f, Vec<T> schur, Vec<T> a) {
  return schur > a * f.gamma + f.gamma_floor;
}

// z and y of the elements at [from, to), and which of them failed. isolate: a second elimination, of windows that end
// before the first failing element.
template <int B, class T>
void factor_tile(const Factors<T>& f, Tile<T>& tile, int64_t from, int64_t to, bool isolate) {
  const auto write = [&]<bool kCut>(int64_t q) __attribute__((always_inline)) {
    const Column<B, T> made = eliminate<B, kCut>(f, tile, q);
    const Vec<T> a = load(tile.h[0] + q);
    Mask<T> kept;
    if constexpr (kCut) {
      kept = (load(tile.failed + q) == T{0}) & (made.schur > T{0});
    } else {
      kept = passes(f, made.schur, a);
      store(tile.failed + q, kept ? Vec<T>{} : splat<T>(1));
    }
    Vec<T> w = load(tile.m + q);
    static_for<B>([&](auto step) __attribute__((always_inline)) {
      constexpr int k = decltype(step)::value + 1;
      w += made.l[k] * load(tile.m + q + k);
    });
    const Vec<T> z = kept ? w / made.schur : load(tile.m + q) / a;
    store(tile.z + q, z);
    static_for<B>([&](auto step) __attribute__((always_inline)) {
      constexpr int k = decltype(step)::value + 1;
      store(tile.y[k - 1] + q, kept ? made.l[k] * z : Vec<T>{});
    });
  };
  if (isolate) {
    for (int64_t q = from; q < to + B; q += kLanes<T>)
      store(tile.failed + q,
            passes(f, eliminate<B, false>(f, tile, q).schur, load(tile.h[0] + q)) ? Vec<T>{} : splat<T>(1));
    for (int64_t q = from; q < to; q += kLanes<T>) write.template operator()<true>(q);
  } else {
    for (int64_t q = from; q < to; q += kLanes<T>) write.template operator()<false>(q);
  }
}

template <class T>
using FactorTile = void (*)(const Factors<T>&, Tile<T>&, int64_t, int64_t, bool);

template <class T>
FactorTile<T> factor_tile_of(int64_t band) {
  constexpr FactorTile<T> kTable[kMostBand + 1] = {
      factor_tile<0, T>, factor_tile<1, T>, factor_tile<2, T>, factor_tile<3, T>, factor_tile<4, T>, factor_tile<5, T>,
      factor_tile<6, T>, factor_tile<7, T>, factor_tile<8, T>, factor_tile<9, T>, factor_tile<10, T>};
  return kTable[band];
}

}  // namespace
}  // namespace llmeff::cpu::LLMEFF_ISA::sonew
