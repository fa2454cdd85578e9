// From the arguments of simplicial_attention and its gradient to the rows their kernels work on.
#pragma once

#include "cuda/kernels/attention_launch.cuh"
#include "cuda/kernels/simplicial_rows.cuh"

namespace llmeff::cuda {

struct SimplicialArguments {
  const View &q, &k1, &k2, &v1, &v2;
  double scale;
  bool causal;
  int64_t w1, w2;
  double k2_bias, v2_bias;
  int64_t q_offset, k1_offset, k2_offset;
  bool determinant;

  // The most rows of a pair that a query sees.
  int64_t reach(int64_t rows, int64_t window) const { return causal && window > 0 ? std::min(rows, window) : rows; }
  bool second_is_shorter() const { return reach(k2.shape[1], w2) <= reach(k1.shape[1], w1); }
};

// tile_rows: of the kernel's tiles. With `a_is_second` the pair (k2, v2) is a, and (k1, v1) the keys; else the reverse.
template <class T>
SimplicialRows<T> simplicial_rows(const SimplicialArguments& x, bool a_is_second, int tile_rows) {
  using W = wide_t<T>;
  SimplicialRows<T> rows = {};
  const View &ka = a_is_second ? x.k2 : x.k1, &kb = a_is_second ? x.k1 : x.k2;
  const View &va = a_is_second ? x.v2 : x.v1, &vb = a_is_second ? x.v1 : x.v2;
  rows.q = heads_of<const T>(x.q), rows.ka = heads_of<const T>(ka), rows.va = heads_of<const T>(va);
  rows.k = heads_of<const T>(kb), rows.v = heads_of<const T>(vb);
  rows.batch = static_cast<int>(x.q.shape[0]), rows.queries = static_cast<int>(x.q.shape[1]);
  rows.shorts = static_cast<int>(ka.shape[1]), rows.keys = static_cast<int>(kb.shape[1]);
  rows.heads = static_cast<int>(x.q.shape[2]), rows.kv_heads = static_cast<int>(ka.shape[2]);
  rows.group = rows.heads / rows.kv_heads;
  rows.width = static_cast<int>(ka.shape[3]), rows.value_width = static_cast<int>(va.shape[3]);
  rows.scale = static_cast<W>(x.scale);
  (a_is_second ? rows.ka_bias : rows.k_bias) = static_cast<W>(x.k2_bias);
  (a_is_second ? rows.va_bias : rows.v_bias) = static_cast<W>(x.v2_bias);
  rows.causal = x.causal;
  rows.window_a = a_is_second ? x.w2 : x.w1, rows.window_b = a_is_second ? x.w1 : x.w2;
  rows.shift_a = x.q_offset - (a_is_second ? x.k2_offset : x.k1_offset);
  rows.shift_b = x.q_offset - (a_is_second ? x.k1_offset : x.k2_offset);
  rows.a_is_second = a_is_second;
  rows.chunks = x.determinant ? rows.width / 3 : 0;
  const int reach = static_cast<int>(x.reach(rows.shorts, rows.window_a));
  rows.tile_heads = std::max(1, std::min(rows.group, tile_rows / reach));
  rows.short_tiles = (reach + tile_rows - 1) / tile_rows;
  rows.aligned = rows.q.aligned(rows.width) && rows.ka.aligned(rows.width) && rows.k.aligned(rows.width) &&
                 rows.va.aligned(rows.value_width) && rows.v.aligned(rows.value_width);
  return rows;
}

}  // namespace llmeff::cuda
