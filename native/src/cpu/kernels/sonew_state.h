// The state of banded SONew between its arrays and a tile: averages updated in place, in the dtype of the parameters or
// in bfloat16.
//
// bfloat16 state is rounded stochastically, so that increments below half a unit of the last place count on average:
// the magnitude's lower 16 bits are added to 16 random ones, and the carry is what rounds up. The random bits of
// element j are the upper half of word j of the Philox stream (id·16 + array)·2³² + step (philox.h) with the step's
// seed; array 0 is m, 1 + k the diagonal k, 12 rms. What follows computes with the rounded numbers: those that a next
// step finds.
#pragma once

#include <type_traits>

#include "half.h"
#include "philox.h"
#include "sonew_window.h"

namespace llmeff::cpu::LLMEFF_ISA::sonew {
namespace {

template <class T>
struct BandedTensor {
  T* p;
  const void* g;
  void *m, *rms, *h[kMostBand + 1];
  int64_t n, chain;
  uint64_t id;
};

// What all tensors of a step have in common.
struct BandedKind {
  int64_t band, reach;  // reach: elements after its own that the windows of a chunk read
  bool half_state;
  DType grads;
  uint64_t seed, step;
};

inline constexpr int kArrayOfRms = 12;

LLMEFF_INLINE uint64_t rounding_stream(uint64_t id, int array, uint64_t step) {
  return (id * 16 + static_cast<uint64_t>(array)) << 32 | step;
}

// `words` becomes the words [j, j + n) of a stream, from words[j % 4] on.
inline void draw_words(const BandedKind& kind, uint64_t id, int array, int64_t j, int64_t n, uint32_t* words) {
  for (int64_t at = 0; at < n + j % 4; at += kWords)
    philox(kind.seed, rounding_stream(id, array, kind.step), static_cast<uint64_t>((j + at) / 4), words + at);
}

LLMEFF_INLINE Vec<float> round_stochastically(Vec<float> x, const uint32_t* words) {
  WordLanes random;
  std::memcpy(&random, words, sizeof random);
  const WordLanes bits = (WordLanes)x, rounded = bits + (random >> 16);
  const WordLanes kept = (bits & 0x7FFFFFFFu) > 0x7F800000u ? bits | 0x00400000u : rounded;  // NaN stays
  return (Vec<float>)(kept & 0xFFFF0000u);
}

template <bool kFull, class S>
LLMEFF_INLINE auto load_state(const S* p, int64_t n) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    if constexpr (kFull) return load(p);
    Vec<float> v = {};
    for (int64_t i = 0; i < n; ++i) v[i] = widen(p[i]);
    return v;
  } else {
    return load_n<kFull>(p, n);
  }
}
// x is a bfloat16 number where S is that.
template <bool kFull, class S, class T>
LLMEFF_INLINE void store_state(S* p, Vec<T> x, int64_t n) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    const HalfLanes halves = __builtin_convertvector((WordLanes)x >> 16, HalfLanes);
    std::memcpy(p, &halves, static_cast<size_t>(kFull ? kLanes<float> : n) * sizeof(BFloat16));
  } else {
    store_n<kFull>(p, x, n);
  }
}

// body.template operator()<S>() with the type of the state.
template <class T, class F>
LLMEFF_INLINE void with_state(const BandedKind& kind, const F& body) {
  if constexpr (std::is_same_v<T, float>)
    if (kind.half_state) return body.template operator()<BFloat16>();
  body.template operator()<T>();
}

template <class T>
LLMEFF_INLINE void for_each_array(const BandedKind& kind, const BandedTensor<T>& x, Tile<T>& tile, auto&& body) {
  body(x.m, tile.m, 0);
  for (int64_t k = 0; k <= kind.band; ++k) body(x.h[k], tile.h[k], 1 + static_cast<int>(k));
}

// The scaled gradients of elements [j, j + n) into the tile at q, zeros for those that are not there.
template <class T>
void load_grads(const BandedKind& kind, const Factors<T>& f, const BandedTensor<T>& x, int64_t j, int64_t n, T* to) {
  const int64_t there = x.n - j < n ? (x.n > j ? x.n - j : 0) : n;
  const auto scaled = [&](const auto* g) {
    for (int64_t i = 0; i < there; ++i) {
      if constexpr (sizeof(*g) == 2)
        to[i] = widen(g[j + i]) * f.grad_scale;
      else
        to[i] = g[j + i] * f.grad_scale;
    }
  };
  if (std::is_same_v<T, float> && kind.grads == DType::kBF16)
    scaled(static_cast<const BFloat16*>(x.g));
  else if (std::is_same_v<T, float> && kind.grads == DType::kF16)
    scaled(static_cast<const Float16*>(x.g));
  else
    scaled(static_cast<const T*>(x.g));
  for (int64_t i = there; i < n; ++i) to[i] = 0;
}

// For each of n elements from j on, the number of those after it in its chain.
template <class T>
void count_left(int64_t j, int64_t n, int64_t chain, T* to) {
  int64_t left = chain_end(j, chain) - j;
  for (int64_t i = 0; i < n; ++i) {
    to[i] = static_cast<T>(left);
    left = left > 0 ? left - 1 : chain - 1;
  }
}

// The new state of elements [j, j + n), which exist, into the tile at q; with kStore also into the arrays. The tile has
// their gradients and those of the `band` elements after them.
template <bool kStore, class T>
void update_state(const BandedKind& kind, const Factors<T>& f, const BandedTensor<T>& x, Tile<T>& tile, int64_t j,
                  int64_t n, int64_t q) {
  const bool cut = x.chain < x.n;
  if (cut) count_left(j, n, x.chain, tile.left + q);
  with_state<T>(kind, [&]<class S>() {
    const auto advance = [&](void* state, T* row, int array, T beta, T rest, const auto& sample) {
      S* const to = static_cast<S*>(state) + j;
      if constexpr (std::is_same_v<S, BFloat16>) draw_words(kind, x.id, array, j, n, tile.words);
      const auto lanes = [&]<bool kFull>(int64_t i) __attribute__((always_inline)) {
        Vec<T> v = average<T>(load_state<kFull>(to + i, n - i), sample(i), beta, rest);
        if constexpr (std::is_same_v<S, BFloat16>) v = round_stochastically(v, tile.words + j % 4 + i);
        store(row + q + i, v);
        if constexpr (kStore) store_state<kFull, S, T>(to + i, v, n - i);
      };
      int64_t i = 0;
      for (; i + kLanes<T> <= n; i += kLanes<T>) {
        if constexpr (kStore) __builtin_prefetch(to + i + kTile);
        lanes.template operator()<true>(i);
      }
      if (i < n) lanes.template operator()<false>(i);
    };
    const T* const g = tile.g + q;
    advance(x.m, tile.m, 0, f.beta1, f.one_minus_beta1, [&](int64_t i) { return load(g + i); });
    for (int64_t k = 0; k <= kind.band; ++k) {
      const T edge = static_cast<T>(k);
      const T* const left = tile.left + q;
      const auto pairs = [&](int64_t i) { return load(g + i) * load(g + i + k); };
      const int array = 1 + static_cast<int>(k);
      if (cut)
        advance(x.h[k], tile.h[k], array, f.beta2, f.one_minus_beta2,
                [&](int64_t i) { return load(left + i) >= edge ? pairs(i) : Vec<T>{}; });
      else
        advance(x.h[k], tile.h[k], array, f.beta2, f.one_minus_beta2, pairs);
    }
  });
}

// The stored state of elements [j, j + n), which exist, into the tile at q.
template <class T>
void load_tile(const BandedKind& kind, const BandedTensor<T>& x, Tile<T>& tile, int64_t j, int64_t n, int64_t q) {
  with_state<T>(kind, [&]<class S>() {
    for_each_array(kind, x, tile, [&](void* state, T* row, int) {
      const S* const from = static_cast<const S*>(state) + j;
      int64_t i = 0;
      for (; i + kLanes<T> <= n; i += kLanes<T>) store<T>(row + q + i, load_state<true>(from + i, kLanes<T>));
      if (i < n) store<T>(row + q + i, load_state<false>(from + i, n - i));
    });
  });
}

// Σ of the squares of what the update is scaled to, for elements [j, j + n) whose new state (without δ) is in the tile
// at q; with Graft::kRmspropNorm also updates its average, in place.
template <class T>
double sum_reference(const BandedKind& kind, const Factors<T>& f, const BandedTensor<T>& x, Graft graft, T unit_grad,
                     Tile<T>& tile, int64_t j, int64_t n, int64_t q) {
  SumOfSquares<T> squares;
  const auto add = [&]<Graft kGraft, class S>(S* rms) {
    if constexpr (std::is_same_v<S, BFloat16> && kGraft == Graft::kRmspropNorm)
      draw_words(kind, x.id, kArrayOfRms, j, n, tile.words);
    const auto lanes = [&]<bool kFull>(int64_t i) __attribute__((always_inline)) {
      Vec<T> g = load(tile.g + q + i), average_square = {};
      if constexpr (kGraft == Graft::kRmspropNorm) {
        g *= unit_grad;
        average_square = average<T>(load_state<kFull>(rms + i, n - i), g * g, f.beta2, f.one_minus_beta2);
        if constexpr (std::is_same_v<S, BFloat16>)
          average_square = round_stochastically(average_square, tile.words + j % 4 + i);
        store_state<kFull, S, T>(rms + i, average_square, n - i);
      }
      Vec<T> target = reference<kGraft, T>(f, g, load(tile.m + q + i), load(tile.h[0] + q + i), average_square);
      if constexpr (!kFull)
        for (int64_t lane = n - i; lane < kLanes<T>; ++lane) target[lane] = 0;
      squares.add(target);
    };
    int64_t i = 0;
    for (; i + kLanes<T> <= n; i += kLanes<T>) lanes.template operator()<true>(i);
    if (i < n) lanes.template operator()<false>(i);
  };
  with_state<T>(kind, [&]<class S>() {
    with_graft(graft, [&]<Graft kGraft>() {
      if constexpr (kGraft != Graft::kNone)
        add.template operator()<kGraft, S>(x.rms == nullptr ? nullptr : static_cast<S*>(x.rms) + j);
    });
  });
  return squares.total();
}

}  // namespace
}  // namespace llmeff::cpu::LLMEFF_ISA::sonew
