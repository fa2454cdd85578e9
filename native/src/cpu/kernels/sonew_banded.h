// The passes of SONew with any band from 0 to kMostBand, any dtype of gradients and state and both rules that drop
// edges. A thread streams through its chunk tile by tile: state in place and into the tile, factor, use; what the next
// tile needs of this one is moved to its front.
//
//   no graft   p, g, m and b+1 diagonals are read, p, m and the diagonals written: 4(7 + 2b) bytes a float32 parameter
//   graft      u goes to scratch memory, which a second pass reads: 4(9 + 2b)
//
// A chunk reads the new state of the b elements before it and of `reach` after it (b; 2b if edges are dropped on both
// sides), which other threads write. All borders are therefore computed, from the old state, before the first pass.
#pragma once

#include "sonew_state.h"

namespace llmeff::cpu::LLMEFF_ISA::sonew {
namespace {

template <class T>
struct Banded : Step<T> {
  using Step<T>::f, Step<T>::chunks, Step<T>::sums, Step<T>::rate, Step<T>::unit_grad, Step<T>::lists;

  BandedKind kind;
  FactorTile<T> factor;
  bool isolate;
  BandedTensor<T>* arrays;  // [tensor]
  T* borders;               // [chunk][array][border_width()]
  T* update_of_batch;       // u, with a graft
  int64_t* first_element;   // [tensor], in update_of_batch

  int64_t border_width() const { return kind.band + kind.reach; }
  int64_t border_size() const { return (kind.band + 2) * border_width(); }

  void lay_out(Layout& memory) {
    Step<T>::lay_out(memory);
    arrays = memory.take<BandedTensor<T>>(this->tensors());
    first_element = memory.take<int64_t>(this->tensors());
    borders = memory.take<T>(border_size() * count_chunks(lists->params));
    update_of_batch = memory.take<T>(this->grafts() ? this->largest_batch() : 0);
  }

  void prepare() {
    Step<T>::prepare();
    const int64_t count = this->tensors();
    for (int64_t i = 0; i < count; ++i) {
      arrays[i] = {.p = lists->params[i].template as<T>(),
                   .g = lists->grads[i].data,
                   .m = lists->m[i].data,
                   .rms = lists->rms.size > 0 ? lists->rms[i].data : nullptr,
                   .h = {},
                   .n = lists->size(i),
                   .chain = lists->chain(i),
                   .id = static_cast<uint64_t>(lists->rounding_ids[i])};
      for (int64_t k = 0; k <= kind.band; ++k) arrays[i].h[k] = lists->h[k * count + i].data;
    }
  }

  void begin_batch(int64_t from, int64_t to) {
    int64_t elements = 0;
    for (int64_t t = from; t < to; ++t) {
      first_element[t] = elements;
      elements += arrays[t].n;
    }
  }

  void sum_grads(int64_t i) {
    const Chunk& c = chunks[i];
    SumOfSquares<T> squares;
    alignas(64) T g[kTile];
    for (int64_t j = c.begin; j < c.end; j += kTile) {
      load_grads(kind, f, arrays[c.tensor], j, kTile, g);
      if (c.end - j < kTile)
        for (int64_t k = c.end - j; k < kTile; ++k) g[k] = 0;
      for (int64_t k = 0; k < kTile; k += kLanes<T>) squares.add(load(g + k));
    }
    sums[i].grad = squares.total();
  }

  void prepare_borders(int64_t first, int64_t count) {
    if (kind.band == 0) return;
    parallel_for(count, [&](int64_t i, int worker) {
      const Chunk& c = chunks[first + i];
      if (c.begin == 0) return;
      const BandedTensor<T>& x = arrays[c.tensor];
      Tile<T>& tile = *worker_scratch<Tile<T>>(worker, 1);
      const int64_t j = c.begin - kind.band, n = x.n - j < border_width() ? x.n - j : border_width();
      load_grads(kind, f, x, j, n + kind.band, tile.g + kLead);
      update_state<false>(kind, f, x, tile, j, n, kLead);
      T* to = borders + (first + i) * border_size();
      for_each_array(kind, x, tile, [&](void*, const T* row, int) {
        for (int64_t k = 0; k < n; ++k) to[k] = row[kLead + k];
        to += border_width();
      });
    });
  }

  void update(int64_t i, int worker) {
    const Chunk& c = chunks[i];
    Tile<T>& tile = *worker_scratch<Tile<T>>(worker, 1);
    for (int64_t j = c.begin; j < c.end; j += kTile)
      update_tile(i, tile, j, c.end - j < kTile ? c.end - j : kTile, kLead);
  }

  void row_sums(int64_t i, int worker) {
    const Chunk& c = chunks[i];
    const BandedTensor<T>& x = arrays[c.tensor];
    T* const row_max = this->row_max + this->first_chain[c.tensor];
    Tile<T>& tile = *worker_scratch<Tile<T>>(worker, 1);
    alignas(64) T sum[kTile];
    for (int64_t j = c.begin; j < c.end; j += kTile) {
      const int64_t n = c.end - j < kTile ? c.end - j : kTile, before = j < kind.band ? j : kind.band;
      for (int64_t k = 1; k <= kind.band; ++k)
        for (int64_t e = 1; e <= kind.band; ++e) tile.h[k][kLead - e] = 0;
      load_tile(kind, x, tile, j - before, n + before, kLead - before);
      for (int64_t e = 0; e < n; e += kLanes<T>) {
        Vec<T> v = load(tile.h[0] + kLead + e);
        for (int64_t k = 1; k <= kind.band; ++k)
          v += vabs<T>(load(tile.h[k] + kLead + e)) + vabs<T>(load(tile.h[k] + kLead + e - k));
        store(sum + e, v);
      }
      for (int64_t e = 0; e < n;) {
        const int64_t last = chain_end(j + e, x.chain) - j, stop = last + 1 < n ? last + 1 : n;
        T most = 0;
        const int64_t chain = (j + e) / x.chain;
        for (; e < stop; ++e) most = sum[e] > most ? sum[e] : most;
        raise_to(row_max + chain, most);
      }
    }
  }

  void factor_state(int64_t i, int worker) { stream<false>(i, worker); }
  void update_and_factor(int64_t i, int worker) { stream<true>(i, worker); }

  void apply(int64_t i) {
    const Chunk& c = chunks[i];
    const BandedTensor<T>& x = arrays[c.tensor];
    const T* const u = update_of_batch + first_element[c.tensor];
    apply_update(c.tensor, c.begin, c.end, u + c.begin);
    if (lists->copies.size > 0) copy_params(x.p, lists->copies[c.tensor], c.begin, c.end);
  }

 private:
  // p of elements [begin, end) by their u.
  void apply_update(int64_t tensor, int64_t begin, int64_t end, const T* u) {
    const T factor_of_u = static_cast<T>(rate[tensor]), keep = f.keep;
    T* const p = arrays[tensor].p;
    int64_t j = begin;
    for (; j + kLanes<T> <= end; j += kLanes<T>) store(p + j, load(p + j) * keep - load(u + j - begin) * factor_of_u);
    if (j < end)
      store_part(p + j, load_part(p + j, end - j) * keep - load_part(u + j - begin, end - j) * factor_of_u, end - j);
  }

  // The new state of elements [j, j + n) of chunk i into the tile at q, into the arrays, and into the chunk's sum.
  void update_tile(int64_t i, Tile<T>& tile, int64_t j, int64_t n, int64_t q) {
    const int64_t tensor = chunks[i].tensor;
    const BandedTensor<T>& x = arrays[tensor];
    load_grads(kind, f, x, j, n + kind.band, tile.g + q);
    update_state<true>(kind, f, x, tile, j, n, q);
    if (this->grafts())
      sums[i].reference += sum_reference(kind, f, x, this->graft, static_cast<T>(unit_grad[tensor]), tile, j, n, q);
  }

  // δ onto the diagonal of elements [j, j + n), at q.
  void add_delta(const BandedTensor<T>& x, const T* row_max, Tile<T>& tile, int64_t j, int64_t n, int64_t q) {
    T* const a = tile.h[0] + q;
    for (int64_t e = 0; e < n;) {
      const bool several = row_max != nullptr && x.chain < x.n;
      const int64_t last = several ? chain_end(j + e, x.chain) - j : n - 1, stop = last + 1 < n ? last + 1 : n;
      const T delta = row_max == nullptr ? f.delta : row_delta(f, row_max, several ? (j + e) / x.chain : 0);
      for (; e < stop; ++e) a[e] += delta;
    }
  }

  // The neighbours of a chunk: elements [j, j + n), of which some may not exist, from the border before element
  // `border` or from the state, with δ, at q. A vertex that does not exist has no edges and the diagonal 1.
  template <bool kUpdate>
  void load_neighbours(int64_t i, Tile<T>& tile, int64_t border, int64_t j, int64_t n, int64_t q) {
    const Chunk& c = chunks[i];
    const BandedTensor<T>& x = arrays[c.tensor];
    const int64_t there = x.n - j < n ? x.n - j : n;
    if (there > 0) {
      if constexpr (kUpdate) {
        const T* from = borders + (border == c.begin ? i : i + 1) * border_size() + (j - (border - kind.band));
        for_each_array(kind, x, tile, [&](void*, T* row, int) {
          for (int64_t e = 0; e < there; ++e) row[q + e] = from[e];
          from += border_width();
        });
      } else {
        load_tile(kind, x, tile, j, there, q);
      }
      add_delta(x, this->row_max_of(c.tensor), tile, j, there, q);
    }
    for_each_array(kind, x, tile, [&](void*, T* row, int array) {
      for (int64_t e = there > 0 ? there : 0; e < n; ++e) row[q + e] = array == 1 ? T{1} : T{0};
    });
  }

  template <bool kUpdate>
  void stream(int64_t i, int worker) {
    const Chunk c = chunks[i];
    const BandedTensor<T>& x = arrays[c.tensor];
    const T* const row_max = this->row_max_of(c.tensor);
    Tile<T>& tile = *worker_scratch<Tile<T>>(worker, 1);
    for (int64_t k = 0; k < kind.band; ++k)
      for (int64_t e = 1; e <= kind.band; ++e) tile.y[k][kLead - e] = 0;
    if (c.begin > 0 && kind.band > 0) {
      load_neighbours<kUpdate>(i, tile, c.begin, c.begin - kind.band, kind.band, kLead - kind.band);
    }
    SumOfSquares<T> squares;
    T* const u = this->grafts() ? update_of_batch + first_element[c.tensor] : nullptr;
    int64_t filled = c.begin;
    bool ended = false;
    for (int64_t begin = c.begin; begin < c.end; begin += kTile) {
      const int64_t end = c.end - begin < kTile ? c.end : begin + kTile;
      const int64_t until = c.end - end < kLookahead ? c.end : end + kLookahead, q = kLead + filled - begin;
      if (filled < until) {
        if constexpr (kUpdate)
          update_tile(i, tile, filled, until - filled, q);
        else
          load_tile(kind, x, tile, filled, until - filled, q);
        add_delta(x, row_max, tile, filled, until - filled, q);
        filled = until;
      }
      if (filled == c.end && !ended) {
        load_neighbours<kUpdate>(i, tile, c.end, c.end, kind.reach + kLanes<T>, kLead + c.end - begin);
        ended = true;
      }
      if (begin == c.begin && begin > 0 && kind.band > 0) factor(f, tile, kLead - kind.band, kLead, isolate);
      factor(f, tile, kLead, kLead + end - begin, isolate);
      use_tile(c.tensor, tile, begin, end, u, squares, sums[i].dropped);
      if (end < c.end) move_on(tile);
    }
    if (u != nullptr)
      sums[i].update = squares.total();
    else if (lists->copies.size > 0)
      copy_params(x.p, lists->copies[c.tensor], c.begin, c.end);
  }

  // u = z + Σ y, to p or to scratch memory.
  void use_tile(int64_t tensor, Tile<T>& tile, int64_t begin, int64_t end, T* to, SumOfSquares<T>& squares,
                int64_t& dropped) {
    alignas(64) T made[kTile];
    Vec<T> failed = {};
    const int64_t n = end - begin;
    for (int64_t e = 0; e < n; e += kLanes<T>) {
      const int64_t q = kLead + e;
      Vec<T> u = load(tile.z + q), lost = load(tile.failed + q);
      for (int64_t k = 1; k <= kind.band; ++k) u += load(tile.y[k - 1] + q - k);
      for (int64_t lane = n - e; lane < kLanes<T>; ++lane) u[lane] = lost[lane] = 0;  // may be NaN
      failed += lost;
      store(made + e, u);
      if (to != nullptr) squares.add(u);
    }
    dropped += static_cast<int64_t>(reduce_sum<T>(failed));
    if (to == nullptr)
      apply_update(tensor, begin, end, made);
    else
      std::memcpy(to + begin, made, static_cast<size_t>(n) * sizeof(T));
  }

  // The end of a tile and what was read beyond it, to the front.
  void move_on(Tile<T>& tile) {
    constexpr int64_t kCount = kLead + kLookahead + 2 * kMostBand + 16;
    static_assert(kTile + kCount <= kRoom && kCount <= kTile);
    const auto move = [](T* row, int64_t count) {
      std::memcpy(row, row + kTile, static_cast<size_t>(count) * sizeof(T));
    };
    move(tile.m, kCount);
    for (int64_t k = 0; k <= kind.band; ++k) move(tile.h[k], kCount);
    for (int64_t k = 0; k < kind.band; ++k) move(tile.y[k], kLead);
  }
};

}  // namespace
}  // namespace llmeff::cpu::LLMEFF_ISA::sonew
