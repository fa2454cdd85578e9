// The running averages of SONew without edges or with those to the next element, updated in place, and the square of
// what grafting scales to. See sonew_tridiagonal.h for the passes.
#pragma once

#include "sonew_step.h"

namespace llmeff::cpu::LLMEFF_ISA::sonew {
namespace {

template <class T>
struct Arrays {
  T* p;
  const T* g;
  T *m, *h0, *h1, *rms;  // h1: where there are edges
  int64_t n, chain;
};

// The state of consecutive elements.
template <class T>
struct State {
  Vec<T> m, h0, h1;
};

// The new state on both sides of the border between two chunks of one tensor: element `before`, the last of the left
// chunk, and `after`, the first of the right one.
template <class T>
struct Border {
  T before_m, before_h0, before_h1, after_m, after_h0;
};

// The gradients one element further; 0 after the tensor's last.
template <bool kFull, class T>
LLMEFF_INLINE Vec<T> next_grads(const Arrays<T>& x, int64_t j, int64_t n) {
  if constexpr (kFull)
    if (j + kLanes<T> < x.n) return load(x.g + j + 1);
  return load_part(x.g + j + 1, j + n < x.n ? n : n - 1);
}

// Writes the new state of elements [j, j + n). `end` is the end of the chain that holds element j; it becomes that of
// element j + n.
template <bool kEdges, Graft kGraft, bool kFull, class T>
LLMEFF_INLINE State<T> update_vector(const Factors<T>& f, const Arrays<T>& x, int64_t j, int64_t n, int64_t& end,
                                     T unit_grad, SumOfSquares<T>& squares) {
  const Vec<T> g = load_n<kFull>(x.g + j, n) * f.grad_scale;
  const Vec<T> m = average(load_n<kFull>(x.m + j, n), g, f.beta1, f.one_minus_beta1);
  const Vec<T> h0 = average(load_n<kFull>(x.h0 + j, n), g * g, f.beta2, f.one_minus_beta2);
  Vec<T> h1 = {};
  if constexpr (kEdges) {
    Vec<T> pairs = g * (next_grads<kFull>(x, j, n) * f.grad_scale);
    for (; end < j + n; end += x.chain) pairs[end - j] = 0;
    h1 = average(load_n<kFull>(x.h1 + j, n), pairs, f.beta2, f.one_minus_beta2);
    store_n<kFull>(x.h1 + j, h1, n);
  }
  store_n<kFull>(x.m + j, m, n);
  store_n<kFull>(x.h0 + j, h0, n);
  if constexpr (kGraft != Graft::kNone) {
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
  }
  return {m, h0, h1};
}

// The state that update_vector() is about to write at both sides of position j.
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

}  // namespace
}  // namespace llmeff::cpu::LLMEFF_ISA::sonew
