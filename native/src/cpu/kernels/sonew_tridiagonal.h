// The passes of diagonal and tridiagonal SONew, for state of the parameters' dtype and the rule that drops edges
// forward: what most runs use, and as fast as memory. Gradients of 16 bits are widened batch by batch, while they stay
// in the caches.
//
// Update and factor are one loop: update runs one vector ahead of factor, which finds the new state and its neighbours
// in registers. Without grafting that is all (36 bytes a float32 parameter, 28 without edges). With grafting the first
// pass sums, and a second one factors again from the new state: 48 bytes, or 36. Keeping u instead would take 44, a
// scratch array as large as the largest tensor, and stores past the caches.
//
// Memory is what the step waits for: the loops ask for what they will need kAhead elements later, which the caches'
// own prefetchers, with up to eight streams before them, leave to chance.
#pragma once

#include "sonew_factor.h"

namespace llmeff::cpu::LLMEFF_ISA::sonew {
namespace {

template <bool kEdges, class T>
struct Tridiagonal : Step<T> {
  using Step<T>::f, Step<T>::chunks, Step<T>::sums, Step<T>::rate, Step<T>::unit_grad, Step<T>::lists;

  Arrays<T>* arrays;   // [tensor]
  Border<T>* borders;  // [chunk]: at its begin, unless that is the tensor's
  T* wide_grads;       // of a batch, where they have 16 bits

  void lay_out(Layout& memory) {
    Step<T>::lay_out(memory);
    arrays = memory.take<Arrays<T>>(this->tensors());
    borders = memory.take<Border<T>>(count_chunks(lists->params));
    wide_grads = memory.take<T>(has_narrow_grads() ? this->largest_batch() : 0);
  }

  void prepare() {
    Step<T>::prepare();
    const int64_t count = this->tensors();
    for (int64_t i = 0; i < count; ++i)
      arrays[i] = {lists->params[i].template as<T>(),
                   lists->grads[i].template as<T>(),
                   lists->m[i].template as<T>(),
                   lists->h[i].template as<T>(),
                   kEdges ? lists->h[count + i].template as<T>() : nullptr,
                   lists->rms.size > 0 ? lists->rms[i].template as<T>() : nullptr,
                   lists->size(i),
                   lists->chain(i)};
  }

  void begin_batch(int64_t from, int64_t to) {
    if (!has_narrow_grads()) return;
    T* wide = wide_grads;
    for (int64_t t = from; t < to; ++t) {
      arrays[t].g = wide;
      wide += arrays[t].n;
    }
    const int64_t first = this->first_chunk[from];
    parallel_for(this->first_chunk[to] - first, [&](int64_t i, int) {
      const Chunk& c = chunks[first + i];
      T* const g = const_cast<T*>(arrays[c.tensor].g);
      const auto widened = [&](const auto* narrow) {
        for (int64_t j = c.begin; j < c.end; ++j) g[j] = widen(narrow[j]);
      };
      if (lists->grads[0].dtype == DType::kBF16)
        widened(lists->grads[c.tensor].template as<BFloat16>());
      else
        widened(lists->grads[c.tensor].template as<Float16>());
    });
  }

  void sum_grads(int64_t i) {
    const Arrays<T>& x = arrays[chunks[i].tensor];
    SumOfSquares<T> squares;
    for (int64_t j = chunks[i].begin; j < chunks[i].end; j += kLanes<T>) {
      const int64_t n = chunks[i].end - j;
      squares.add((n < kLanes<T> ? load_part(x.g + j, n) : load(x.g + j)) * f.grad_scale);
    }
    sums[i].grad = squares.total();
  }

  void prepare_borders(int64_t first, int64_t count) {
    if (!kEdges) return;
    for (int64_t i = first; i < first + count; ++i)
      if (chunks[i].begin > 0) borders[i] = updated_border(f, arrays[chunks[i].tensor], chunks[i].begin);
  }

  void update(int64_t i, int) {
    with_graft(this->graft, [&]<Graft kGraft>() { update_chunk<kGraft>(i); });
  }
  void row_sums(int64_t i, int) {
    const Chunk& c = chunks[i];
    sonew::row_sums<kEdges>(arrays[c.tensor], c.begin, c.end, this->row_max + this->first_chain[c.tensor]);
  }
  void factor_state(int64_t i, int) {
    if (this->grafts())
      factor_chunk_of_state<false>(i);
    else
      factor_chunk_of_state<true>(i);
  }
  void update_and_factor(int64_t i, int) {
    with_graft(this->graft, [&]<Graft kGraft>() { update_and_factor_chunk<kGraft>(i); });
  }
  void apply(int64_t i) { factor_chunk_of_state<true>(i); }

 private:
  bool has_narrow_grads() const { return lists->grads[0].dtype != lists->params[0].dtype; }

  template <Graft kGraft>
  void update_chunk(int64_t i) {
    const Chunk& c = chunks[i];
    const Factors<T> factors = f;
    const Arrays<T> x = arrays[c.tensor];
    const T unit = static_cast<T>(unit_grad[c.tensor]);
    int64_t last = chain_end(c.begin, x.chain);
    SumOfSquares<T> squares;
    int64_t j = c.begin;
    for (; j + kLanes<T> <= c.end; j += kLanes<T>)
      update_vector<kEdges, kGraft, true>(factors, x, j, kLanes<T>, last, unit, squares);
    if (j < c.end) update_vector<kEdges, kGraft, false>(factors, x, j, c.end - j, last, unit, squares);
    sums[i].reference = squares.total();
  }

  // Copies of what the loops read: the arrays that they write might else hold it.
  template <Graft kGraft>
  void update_and_factor_chunk(int64_t i) {
    const Chunk& c = chunks[i];
    const Factors<T> factors = f;
    const Arrays<T> x = arrays[c.tensor];
    const T unit = static_cast<T>(unit_grad[c.tensor]);
    const int64_t end = c.end;
    int64_t last = chain_end(c.begin, x.chain);
    SumOfSquares<T> squares;
    const auto updated = [&]<bool kFull>(int64_t j, int64_t n) __attribute__((always_inline)) {
      if (j + kAhead<T> < end) {
        fetch(x.g + j), fetch(x.m + j), fetch(x.h0 + j);
        if constexpr (kEdges) fetch(x.h1 + j);
        if constexpr (kGraft == Graft::kNone) fetch(x.p + j);
        if constexpr (kGraft == Graft::kRmspropNorm) fetch(x.rms + j);
      }
      return update_vector<kEdges, kGraft, kFull>(factors, x, j, n, last, unit, squares);
    };
    factor_chunk<kGraft == Graft::kNone>(i, factors, x, kEdges && c.begin > 0 ? borders[i] : Border<T>{},
                                         kEdges && end < x.n ? borders[i + 1] : Border<T>{}, updated);
    sums[i].reference = squares.total();
  }

  // The state is new everywhere.
  template <bool kApply>
  void factor_chunk_of_state(int64_t i) {
    const Chunk& c = chunks[i];
    const Factors<T> factors = f;
    const Arrays<T> x = arrays[c.tensor];
    const int64_t end = c.end;
    const auto stored = [&]<bool kFull>(int64_t j, int64_t n) __attribute__((always_inline)) {
      if (j + kAhead<T> < end) {
        fetch(x.m + j), fetch(x.h0 + j);
        if constexpr (kEdges) fetch(x.h1 + j);
        if constexpr (kApply) fetch(x.p + j);
      }
      Vec<T> h1 = {};
      if constexpr (kEdges) h1 = load_n<kFull>(x.h1 + j, n);
      return State<T>{load_n<kFull>(x.m + j, n), load_n<kFull>(x.h0 + j, n), h1};
    };
    factor_chunk<kApply>(i, factors, x, kEdges && c.begin > 0 ? border_of_state(x, c.begin) : Border<T>{},
                         kEdges && end < x.n ? border_of_state(x, end) : Border<T>{}, stored);
  }

  // Applies u to p, or sums its squares.
  template <bool kApply, class StateAt>
  LLMEFF_INLINE void factor_chunk(int64_t i, const Factors<T>& factors, const Arrays<T>& x, const Border<T>& left,
                                  const Border<T>& right, const StateAt& state) {
    const Chunk& c = chunks[i];
    const T* const maxima = this->row_max_of(c.tensor);
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
    const Surroundings<T> around = {kEdges && c.begin > 0 ? psi_z_before(factors, x, maxima, c.begin, left) : T{0},
                                    right.after_m, right.after_h0};
    sums[i].dropped = factor_range<kEdges>(factors, x, maxima, c.begin, c.end, around, state, use);
    if constexpr (kApply) {
      if (lists->copies.size > 0) copy_params(x.p, lists->copies[c.tensor], c.begin, c.end);
    } else {
      sums[i].update = squares.total();
    }
  }
};

}  // namespace
}  // namespace llmeff::cpu::LLMEFF_ISA::sonew
