// Forward pass of 2-simplicial attention (simplicial_problem.h). A task is a chunk of tokens of one (batch, kv head).
// Per token, long tile outer and rows (query head × short row) inner:
//   S = A Kbᵀ (in units of log 2) → running maximum and sum of each head → P = 2^(S − max) → acc += Σ_r (P_r Vb) ∘ va_r
// so the pairs exist only as tiles of kRowBlock × kKeyTile. Worker memory: the strips of the chunk, plus G·(D + Dv) and
// two tiles; and G·Dv for every token of the chunk when the long rows come in segments.
#include "cpu_kernels.h"
#include "llmeff/parallel.h"
#include "simplicial_epilogues.h"
#include "simplicial_problem.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace simplicial {
namespace {

template <class T>
struct ForwardMemory {
  T *keys_t, *values, *short_keys, *short_values;  // strips; keys_t is [D][ldt]
  T* rows_k;                                       // long keys before the transposition
  T* q;                                            // per query head of the group
  T *acc, *max, *sum;                              // the same, of every token whose softmax is under way
  T *a, *s;                                        // tile operands
  int64_t ldt;

  ForwardMemory(const Problem& p, Arena<T>& arena) {
    const int64_t nb = p.longest_strip_b(), na = p.longest_strip_a();
    const int64_t heads = p.group * (p.segment_count() > 1 ? p.chunk : 1);
    ldt = transposed_stride<T>(nb);
    keys_t = arena.take(p.d * ldt);
    rows_k = arena.take(nb * p.ldk);
    values = arena.take(nb * p.ldv);
    short_keys = arena.take(na * p.ldk);
    short_values = arena.take(na * p.ldv);
    q = arena.take(p.group * p.ldk);
    acc = arena.take(heads * p.ldv);
    max = arena.take(heads);
    sum = arena.take(heads);
    a = arena.take(kRowBlock * p.ldk);
    s = arena.take(kRowBlock * kKeyTile);
  }
};

// The largest of rows × [0, lanes), four rows at a time, and top.
template <class T>
LLMEFF_INLINE Vec<T> max_of_rows(const T* s, int64_t rows, Mask<T> present, Vec<T> top) {
  const Vec<T> lowest = splat(static_cast<T>(-__builtin_inf()));
  Vec<T> tops[4] = {top, top, top, top};
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const Vec<T> x = load(s + (r + i) * kKeyTile);
      tops[i] = vmax(present ? x : lowest, tops[i]);
    }
  for (; r < rows; ++r) tops[0] = vmax(present ? load(s + r * kKeyTile) : lowest, tops[0]);
  return vmax(vmax(tops[0], tops[1]), vmax(tops[2], tops[3]));
}

// s ← 2^(s − shift) on one vector of every row; returns what is added up.
template <class T>
LLMEFF_INLINE Vec<T> exp_of_rows(T* s, int64_t rows, Vec<T> shift) {
  Vec<T> sums[2] = {};
  int64_t r = 0;
  for (; r + 2 <= rows; r += 2)
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      T* const at = s + (r + i) * kKeyTile;
      const Vec<T> e = vexp2(load(at) - shift);
      store(at, e);
      sums[i] += e;
    }
  if (r < rows) {
    T* const at = s + r * kKeyTile;
    const Vec<T> e = vexp2(load(at) - shift);
    store(at, e);
    sums[0] += e;
  }
  return sums[0] + sums[1];
}

// Softmax of one head's rows of the tile in place, merged into its running maximum and sum. Lanes past the last key,
// which the tile also computed, count for neither.
template <class T>
LLMEFF_INLINE void softmax_rows(T* s, int64_t rows, int64_t keys, T* running_max, T* running_sum, T* acc, int64_t dv) {
  const int64_t last = (keys - 1) / kLanes<T> * kLanes<T>;  // the vector with the last key
  const Mask<T> present = iota<T>() < splat(static_cast<T>(keys - last)), all = present | ~present;
  Vec<T> tops = splat(*running_max);
  for (int64_t j = 0; j < last; j += kLanes<T>) tops = max_of_rows(s + j, rows, all, tops);
  const T top = max_of_lanes<T>(max_of_rows(s + last, rows, present, tops));
  if (top > *running_max) {
    const T shrink = vexp2(splat(*running_max - top))[0];
    for (int64_t c = 0; c < dv; c += kLanes<T>) store(acc + c, load(acc + c) * shrink);
    *running_sum *= shrink;
    *running_max = top;
  }
  const Vec<T> shift = splat(*running_max);
  Vec<T> sum = {};
  for (int64_t j = 0; j < last; j += kLanes<T>) sum += exp_of_rows(s + j, rows, shift);
  const Vec<T> e = exp_of_rows(s + last, rows, shift);
  *running_sum += sum_of<T>(sum + (present ? e : Vec<T>{}));
}

// Where the softmax of one token stands, per query head of the group: acc[group, ldv].
template <class T>
struct TokenState {
  T *acc, *max, *sum;
  TokenState(const Problem& p, const ForwardMemory<T>& m, int64_t slot)
      : acc(m.acc + slot * p.group * p.ldv), max(m.max + slot * p.group), sum(m.sum + slot * p.group) {}
};

template <class T>
void forward_tile(const Problem& p, const ForwardMemory<T>& m, const TokenState<T>& state, const RowBlock& block,
                  int64_t key, int64_t keys) {
  for (int64_t h = 0; h < block.heads; ++h)
    for (int64_t r = 0; r < block.shorts; ++r)
      short_product(m.a + (h * block.shorts + r) * p.ldk, m.short_keys + (block.first + r) * p.ldk,
                    m.q + (block.head + h) * p.ldk, p.d, p.chunks3);
  multiply<false>(Product<T>{p.d, m.a, p.ldk, m.keys_t + key, m.ldt}, block.rows(), round_up(keys, kLanes<T>),
                  store_to(m.s, kKeyTile));
  for (int64_t h = 0; h < block.heads; ++h) {
    T* const rows = m.s + h * block.shorts * kKeyTile;
    T* const acc = state.acc + (block.head + h) * p.ldv;
    softmax_rows(rows, block.shorts, keys, state.max + block.head + h, state.sum + block.head + h, acc, p.dv);
    multiply<false>(Product<T>{keys, rows, kKeyTile, m.values + key * p.ldv, p.ldv}, block.shorts,
                    round_up(p.dv, kLanes<T>), fold_into<T>(acc, m.short_values + block.first * p.ldv, p.ldv));
  }
}

template <class T>
LLMEFF_INLINE void start_token(const Problem& p, const TokenState<T>& state) {
  for (int64_t h = 0; h < p.group; ++h) {
    state.max[h] = static_cast<T>(-__builtin_inf());
    state.sum[h] = 0;
  }
  for (int64_t c = 0; c < p.group * p.ldv; ++c) state.acc[c] = 0;
}

// Adds the pairs of token t with a long row in the strip.
template <class T>
void forward_token(const Problem& p, const ForwardMemory<T>& m, const TokenState<T>& state, const Task& task, int64_t t,
                   Range strip_a, Range strip_b) {
  const Range rows_a = p.rows_of(p.a, t, t), rows_b = intersection(p.rows_of(p.b, t, t), strip_b);
  if (rows_a.size() == 0 || rows_b.size() == 0) return;
  const T factor = static_cast<T>(p.scale * kLog2E);
  for (int64_t h = 0; h < p.group; ++h)
    pack_row<T>(m.q + h * p.ldk, row_at<T>(p.q, task.batch, t, task.kv_head * p.group + h), p.d, p.ldk, T{0}, factor,
                p.chunks3, T{1});
  const Range shorts{rows_a.begin - strip_a.begin, rows_a.end - strip_a.begin};
  for (int64_t key = rows_b.begin; key < rows_b.end; key += kKeyTile)
    for_row_blocks(p.group, shorts, [&](const RowBlock& block) {
      forward_tile(p, m, state, block, key - strip_b.begin, smaller(kKeyTile, rows_b.end - key));
    });
}

template <class T>
LLMEFF_INLINE void finish_token(const Problem& p, const TokenState<T>& state, const Task& task, int64_t t, const Out& o,
                                const Out& lse) {
  for (int64_t h = 0; h < p.group; ++h) {
    const int64_t head = task.kv_head * p.group + h;
    T* const out = o.as<T>() + task.batch * o.strides[0] + t * o.strides[1] + head * o.strides[2];
    const T inverse = state.sum[h] == 0 ? T{0} : 1 / state.sum[h];
    for (int64_t c = 0; c < p.dv; ++c) out[c] = state.acc[h * p.ldv + c] * inverse;
    lse.as<T>()[(task.batch * p.heads + head) * p.tokens + t] =
        static_cast<T>(static_cast<double>(state.max[h]) * kLn2 + __builtin_log(static_cast<double>(state.sum[h])));
  }
}

template <class T>
void forward_task(const Problem& p, const ForwardMemory<T>& m, const Task& task, const Out& o, const Out& lse) {
  const Range a = p.rows_of(p.a, task.first, task.last), b = p.rows_of(p.b, task.first, task.last);
  pack_keys(p, p.a, task, a, m.short_keys);
  pack_values(p, p.a, task, a, m.short_values);
  const int64_t segments = larger(1, ceil_div(b.size(), kSegment));
  for (int64_t i = 0; i < segments; ++i) {
    const Range segment = p.segment_of(b, i);
    pack_keys(p, p.b, task, segment, m.rows_k);
    transpose_strip(m.rows_k, segment.size(), p.d, p.ldk, m.keys_t, m.ldt);
    pack_values(p, p.b, task, segment, m.values);
    for (int64_t t = task.first; t <= task.last; ++t) {
      const TokenState<T> state(p, m, segments > 1 ? t - task.first : 0);
      prefetch_token<T>(p.q, task, t + 1, p.group);
      if (i == 0) start_token(p, state);
      forward_token(p, m, state, task, t, a, segment);
      if (i == segments - 1) finish_token(p, state, task, t, o, lse);
    }
  }
}

template <class T>
void forward(const Problem& p, const Out& o, const Out& lse) {
  Arena<T> size;
  ForwardMemory<T>(p, size);
  parallel_for(p.task_count(), [&](int64_t index, int worker) {
    Arena<T> arena{worker_scratch<T>(worker, size.used), 0};
    // Later chunks have the longer windows: first.
    forward_task(p, ForwardMemory<T>(p, arena), task_at(p, p.task_count() - 1 - index), o, lse);
  });
}

}  // namespace
}  // namespace simplicial

void CpuKernels::simplicial_attention(const In& q, const In& k1, const In& k2, const In& v1, const In& v2, double scale,
                                      bool causal, int64_t w1, int64_t w2, double k2_bias, double v2_bias,
                                      int64_t q_offset, int64_t k1_offset, int64_t k2_offset, bool determinant,
                                      const Out& o, const Out& lse) {
  using namespace simplicial;
  if (q.dtype == DType::kF64)
    forward<double>(make_problem<double>(q, k1, k2, v1, v2, scale, causal, w1, w2, k2_bias, v2_bias, q_offset,
                                         k1_offset, k2_offset, determinant),
                    o, lse);
  else
    forward<float>(make_problem<float>(q, k1, k2, v1, v2, scale, causal, w1, w2, k2_bias, v2_bias, q_offset, k1_offset,
                                       k2_offset, determinant),
                   o, lse);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
