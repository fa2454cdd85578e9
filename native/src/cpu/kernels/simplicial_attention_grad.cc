// Backward pass of 2-simplicial attention (simplicial_problem.h), from o and lse. With y = dout, δ = Σ y∘o and Y_r = y
// ∘ va_r, per tile:
//   S = A Kbᵀ,  P = exp(S − lse),  dP = Y Vbᵀ,  dS = P ∘ (dP − δ)                                  (scale is applied at
//   the end)
// Small groups: rows are (query head, short row), six products:
//   G = dS Kb: dq += Σ_r G∘ka_r, dka_r += G∘q;   dKb += dSᵀ A;   dVb += Pᵀ Y;   dva_r += (P Vb)∘y
// Large groups: rows are the query heads of one short row r, five products, since q and y do not depend on r:
//   G = dS Kb: dq += G∘ka_r;   U = dSᵀ q: dKb += U∘ka_r, dka_r += Σ U∘Kb;   W = Pᵀ y: dVb += W∘va_r, dva_r += Σ W∘Vb
// Determinant form: A = ka × q, dq += G × ka, dka += q × G (rows as in small groups).
//
// A task owns a chunk of tokens and writes its share of dka, dkb, dva, dvb to strips of its own, which are then added
// in the order of the chunks; chunks depend only on shapes, so the result is the same bits for any number of threads.
#include "cpu_kernels.h"
#include "llmeff/parallel.h"
#include "simplicial_epilogues.h"
#include "simplicial_problem.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace simplicial {
namespace {

inline constexpr int64_t kHeadBlock = 64;  // query heads of one product, in large groups
inline constexpr int64_t kLargeGroup = 16;
inline constexpr int64_t kMaxRows = kHeadBlock > kRowBlock ? kHeadBlock : kRowBlock;
inline constexpr int64_t kStripBytes = 1 << 27;  // of strips at a time

struct Gradients {
  Out dq, dka, dkb, dva, dvb;
};

// Gradients of the strips of one task.
template <class T>
struct StripGradients {
  T *dka, *dkb, *dva, *dvb;
  StripGradients(const Problem& p, Arena<T>& arena) {
    const int64_t na = p.longest_strip_a(), nb = p.longest_strip_b();
    dka = arena.take(na * p.ldk);
    dkb = arena.take(nb * p.ldk);
    dva = arena.take(na * p.ldv);
    dvb = arena.take(nb * p.ldv);
  }
};

template <class T>
struct BackwardMemory {
  T *ka, *va, *kb, *vb, *kb_t, *vb_t;  // strips
  T *q, *y, *dq, *lse, *delta;         // per query head of the group
  T *a, *ya, *s, *ds, *g;              // tile operands
  int64_t ldt;

  BackwardMemory(const Problem& p, Arena<T>& arena) {
    const int64_t na = p.longest_strip_a(), nb = p.longest_strip_b();
    ldt = transposed_stride<T>(nb);
    ka = arena.take(na * p.ldk);
    va = arena.take(na * p.ldv);
    kb = arena.take(nb * p.ldk);
    vb = arena.take(nb * p.ldv);
    kb_t = arena.take(p.d * ldt);
    vb_t = arena.take(p.dv * ldt);
    q = arena.take(p.group * p.ldk);
    dq = arena.take(p.group * p.ldk);
    y = arena.take(p.group * p.ldv);
    lse = arena.take(p.group);
    delta = arena.take(p.group);
    a = arena.take(kMaxRows * p.ldk);
    ya = arena.take(kMaxRows * p.ldv);
    s = arena.take(kMaxRows * kKeyTile);
    ds = arena.take(kMaxRows * kKeyTile);
    g = arena.take(kRowBlock * p.ldk);
  }
};

// s, ds of the tile from A and Y: s = P, ds = dS / scale. Row i belongs to the query head `head + i / rows_per_head`.
template <class T>
LLMEFF_INLINE void probabilities(const Problem& p, const BackwardMemory<T>& m, int64_t head, int64_t rows,
                                 int64_t rows_per_head, int64_t key, int64_t keys) {
  const int64_t lanes = round_up(keys, kLanes<T>);
  multiply<false>(Product<T>{p.d, m.a, p.ldk, m.kb_t + key, m.ldt}, rows, lanes, store_to(m.s, kKeyTile));
  multiply<false>(Product<T>{p.dv, m.ya, p.ldv, m.vb_t + key, m.ldt}, rows, lanes, store_to(m.ds, kKeyTile));
  for (int64_t i = 0, h = head; i < rows; ++h)
    for (const int64_t end = i + rows_per_head; i < end; ++i) {
      const Vec<T> lse = splat(m.lse[h]), delta = splat(m.delta[h]);
      for (int64_t j = i * kKeyTile; j < i * kKeyTile + lanes; j += kLanes<T>) {
        const Vec<T> e = vexp2(load(m.s + j) - lse);
        store(m.s + j, e);
        store(m.ds + j, e * (load(m.ds + j) - delta));
      }
    }
}

// dq += g × ka, dka += q × g, in planes.
template <class T>
LLMEFF_INLINE void fold_determinant(const Problem& p, const T* __restrict g, const T* __restrict ka,
                                    const T* __restrict q, T* __restrict dq, T* __restrict dka) {
  const int64_t n = p.chunks3, y = n, z = 2 * n;
  for (int64_t c = 0; c < n; ++c) {
    dq[c] += g[y + c] * ka[z + c] - g[z + c] * ka[y + c];
    dq[y + c] += g[z + c] * ka[c] - g[c] * ka[z + c];
    dq[z + c] += g[c] * ka[y + c] - g[y + c] * ka[c];
    dka[c] += q[y + c] * g[z + c] - q[z + c] * g[y + c];
    dka[y + c] += q[z + c] * g[c] - q[c] * g[z + c];
    dka[z + c] += q[c] * g[y + c] - q[y + c] * g[c];
  }
  for (int64_t c = 3 * n; c < p.d; ++c) {
    dq[c] += g[c] * ka[c];
    dka[c] += g[c] * q[c];
  }
}

// dq and dka of one query head's rows of the tile.
template <class T>
LLMEFF_INLINE void head_gradients(const Problem& p, const BackwardMemory<T>& m, const StripGradients<T>& out,
                                  int64_t head, const RowBlock& block, const T* ds, int64_t key, int64_t keys) {
  const int64_t lanes = round_up(p.d, kLanes<T>), ld = p.ldk;
  const Product<T> product{keys, ds, kKeyTile, m.kb + key * p.ldk, p.ldk};
  const T* const ka = m.ka + block.first * ld;
  T* const dka = out.dka + block.first * ld;
  const T* const q = m.q + head * ld;
  T* const dq = m.dq + head * ld;
  if (p.chunks3 > 0) {
    multiply<false>(product, block.shorts, lanes, store_to(m.g, ld));
    for (int64_t r = 0; r < block.shorts; ++r) fold_determinant(p, m.g + r * ld, ka + r * ld, q, dq, dka + r * ld);
  } else {
    multiply<false>(product, block.shorts, lanes, add_scaled_and_fold(dka, q, dq, ka, ld));
  }
}

template <class T>
void small_group_tile(const Problem& p, const BackwardMemory<T>& m, const StripGradients<T>& out, const RowBlock& block,
                      int64_t key, int64_t keys) {
  const int64_t rows = block.rows(), lanes_v = round_up(p.dv, kLanes<T>);
  for (int64_t h = 0, i = 0; h < block.heads; ++h)
    for (int64_t r = 0; r < block.shorts; ++r, ++i) {
      short_product(m.a + i * p.ldk, m.ka + (block.first + r) * p.ldk, m.q + (block.head + h) * p.ldk, p.d, p.chunks3);
      short_product(m.ya + i * p.ldv, m.va + (block.first + r) * p.ldv, m.y + (block.head + h) * p.ldv, p.dv, 0);
    }
  probabilities(p, m, block.head, rows, block.shorts, key, keys);
  for (int64_t h = 0; h < block.heads; ++h) {
    const int64_t row = h * block.shorts * kKeyTile;
    head_gradients(p, m, out, block.head + h, block, m.ds + row, key, keys);
    multiply<false>(Product<T>{keys, m.s + row, kKeyTile, m.vb + key * p.ldv, p.ldv}, block.shorts, lanes_v,
                    add_scaled_to(out.dva + block.first * p.ldv, p.ldv, m.y + (block.head + h) * p.ldv));
  }
  multiply<true>(Product<T>{rows, m.ds, kKeyTile, m.a, p.ldk}, keys, round_up(p.d, kLanes<T>),
                 add_to(out.dkb + key * p.ldk, p.ldk));
  multiply<true>(Product<T>{rows, m.s, kKeyTile, m.ya, p.ldv}, keys, lanes_v, add_to(out.dvb + key * p.ldv, p.ldv));
}

template <class T>
void large_group_tile(const Problem& p, const BackwardMemory<T>& m, const StripGradients<T>& out, int64_t head,
                      int64_t heads, int64_t r, int64_t key, int64_t keys) {
  const int64_t lanes_k = round_up(p.d, kLanes<T>), lanes_v = round_up(p.dv, kLanes<T>);
  const T *const ka = m.ka + r * p.ldk, *const va = m.va + r * p.ldv;
  for (int64_t h = 0; h < heads; ++h) {
    short_product(m.a + h * p.ldk, ka, m.q + (head + h) * p.ldk, p.d, 0);
    short_product(m.ya + h * p.ldv, va, m.y + (head + h) * p.ldv, p.dv, 0);
  }
  probabilities(p, m, head, heads, 1, key, keys);
  const T *const kb = m.kb + key * p.ldk, *const vb = m.vb + key * p.ldv;
  multiply<false>(Product<T>{keys, m.ds, kKeyTile, kb, p.ldk}, heads, lanes_k,
                  add_scaled_to(m.dq + head * p.ldk, p.ldk, ka));
  multiply<true>(Product<T>{heads, m.ds, kKeyTile, m.q + head * p.ldk, p.ldk}, keys, lanes_k,
                 add_scaled_and_fold(out.dkb + key * p.ldk, ka, out.dka + r * p.ldk, kb, p.ldk));
  multiply<true>(Product<T>{heads, m.s, kKeyTile, m.y + head * p.ldv, p.ldv}, keys, lanes_v,
                 add_scaled_and_fold(out.dvb + key * p.ldv, va, out.dva + r * p.ldv, vb, p.ldv));
}

// q, y, lse (base 2) and delta of the group at token t; dq = 0.
template <class T>
LLMEFF_INLINE void load_token(const Problem& p, const BackwardMemory<T>& m, const Task& task, int64_t t, const In& dout,
                              const In& o, const In& lse) {
  for (int64_t h = 0; h < p.group; ++h) {
    const int64_t head = task.kv_head * p.group + h;
    pack_row<T>(m.q + h * p.ldk, row_at<T>(p.q, task.batch, t, head), p.d, p.ldk, T{0},
                static_cast<T>(p.scale * kLog2E), p.chunks3, T{1});
    pack_row<T>(m.y + h * p.ldv, row_at<T>(dout, task.batch, t, head), p.dv, p.ldv, T{0}, T{1}, 0, T{1});
    pack_row<T>(m.ya, row_at<T>(o, task.batch, t, head), p.dv, p.ldv, T{0}, T{1}, 0, T{1});
    Vec<T> delta = {};
    for (int64_t c = 0; c < p.dv; c += kLanes<T>) delta += load(m.ya + c) * load(m.y + h * p.ldv + c);
    m.delta[h] = sum_of<T>(delta);
    m.lse[h] = static_cast<T>(static_cast<double>(lse.as<T>()[(task.batch * p.heads + head) * p.tokens + t]) * kLog2E);
  }
  for (int64_t c = 0; c < p.group * p.ldk; ++c) m.dq[c] = 0;
}

template <class T>
LLMEFF_INLINE void backward_token(const Problem& p, const BackwardMemory<T>& m, const StripGradients<T>& out, int64_t t,
                                  Range strip_a, Range strip_b) {
  const Range rows_a = p.rows_of(p.a, t, t), rows_b = intersection(p.rows_of(p.b, t, t), strip_b);
  const Range shorts{rows_a.begin - strip_a.begin, rows_a.end - strip_a.begin};
  const bool large = p.group >= kLargeGroup && p.chunks3 == 0;
  for (int64_t j = rows_b.begin; j < rows_b.end && shorts.size() > 0; j += kKeyTile) {
    const int64_t key = j - strip_b.begin, keys = smaller(kKeyTile, rows_b.end - j);
    if (large) {
      for (int64_t r = shorts.begin; r < shorts.end; ++r)
        for (int64_t h = 0; h < p.group; h += kHeadBlock)
          large_group_tile(p, m, out, h, smaller(kHeadBlock, p.group - h), r, key, keys);
    } else {
      for_row_blocks(p.group, shorts, [&](const RowBlock& block) { small_group_tile(p, m, out, block, key, keys); });
    }
  }
}

// The pairs of a chunk with the long rows b, a segment of what it sees; dq is stored with the first and added to later.
template <class T>
void backward_task(const Problem& p, const BackwardMemory<T>& m, const StripGradients<T>& out, const Task& task,
                   Range b, bool first, const In& dout, const In& o, const In& lse, const Out& dq) {
  const Range a = p.rows_of(p.a, task.first, task.last);
  pack_keys(p, p.a, task, a, m.ka);
  pack_values(p, p.a, task, a, m.va);
  pack_keys(p, p.b, task, b, m.kb);
  pack_values(p, p.b, task, b, m.vb);
  transpose_strip(m.kb, b.size(), p.d, p.ldk, m.kb_t, m.ldt);
  transpose_strip(m.vb, b.size(), p.dv, p.ldv, m.vb_t, m.ldt);
  const T scale = static_cast<T>(p.scale);
  for (int64_t t = task.first; t <= task.last; ++t) {
    prefetch_token<T>(p.q, task, t + 1, p.group);
    prefetch_token<T>(dout, task, t + 1, p.group);
    prefetch_token<T>(o, task, t + 1, p.group);
    load_token(p, m, task, t, dout, o, lse);
    backward_token(p, m, out, t, a, b);
    T* row = dq.as<T>() + ((task.batch * p.tokens + t) * p.heads + task.kv_head * p.group) * p.d;
    for (int64_t h = 0; h < p.group; ++h, row += p.d) {
      if (first)
        unpack_row<false>(row, m.dq + h * p.ldk, p.d, scale, p.chunks3, T{1});
      else
        unpack_row<true>(row, m.dq + h * p.ldk, p.d, scale, p.chunks3, T{1});
    }
  }
}

// Adds a strip to the rows of a gradient [B, S, K, n] that it covers.
template <class T>
LLMEFF_INLINE void add_strip(const Problem& p, const Task& task, const Side& side, Range rows, const T* strip,
                             int64_t ld, const Out& to, double factor, int64_t chunks3, double sign) {
  const int64_t n = to.shape[3];
  for (int64_t r = rows.begin; r < rows.end; ++r, strip += ld)
    unpack_row<true>(to.as<T>() + ((task.batch * side.rows() + r) * p.kv_heads + task.kv_head) * n, strip, n,
                     static_cast<T>(factor), chunks3, static_cast<T>(sign));
}

// Adds one of the four strips of a task.
template <class T>
void add_task(const Problem& p, const Task& task, Range b, const StripGradients<T>& part, const Gradients& grads,
              int64_t which) {
  const Range a = p.rows_of(p.a, task.first, task.last);
  switch (which) {
    case 0:
      return add_strip(p, task, p.a, a, part.dka, p.ldk, grads.dka, kLn2, p.chunks3, p.a.sign);
    case 1:
      return add_strip(p, task, p.b, b, part.dkb, p.ldk, grads.dkb, kLn2, p.chunks3, p.b.sign);
    case 2:
      return add_strip(p, task, p.a, a, part.dva, p.ldv, grads.dva, 1, 0, 1);
    default:
      return add_strip(p, task, p.b, b, part.dvb, p.ldv, grads.dvb, 1, 0, 1);
  }
}

template <class T>
void backward(const Problem& p, const In& dout, const In& o, const In& lse, const Gradients& grads) {
  Arena<T> strips, memory;
  StripGradients<T>(p, strips);
  BackwardMemory<T>(p, memory);
  const int64_t tasks = p.task_count(), chunks = p.chunk_count(), strip_size = strips.used;
  const int64_t at_once = smaller(tasks, larger(16, kStripBytes / static_cast<int64_t>(sizeof(T)) / strip_size));
  T* const buffer = shared_scratch<T>(at_once * strip_size);
  const Out* const sums[4] = {&grads.dka, &grads.dkb, &grads.dva, &grads.dvb};
  parallel_for(
      4, [&](int64_t i, int) { __builtin_memset(sums[i]->data, 0, static_cast<size_t>(sums[i]->size()) * sizeof(T)); });

  const auto pass = [&](int64_t segment, int64_t first, int64_t end) {
    const auto rows_b = [&](const Task& task) { return p.segment_of(p.rows_of(p.b, task.first, task.last), segment); };
    parallel_for(end - first, [&](int64_t i, int worker) {
      const Task task = task_at(p, first + i);
      const Range b = rows_b(task);
      if (segment > 0 && b.size() == 0) return;
      T* const mine = buffer + i * strip_size;
      __builtin_memset(mine, 0, static_cast<size_t>(strip_size) * sizeof(T));
      Arena<T> strip{mine, 0}, arena{worker_scratch<T>(worker, memory.used), 0};
      backward_task(p, BackwardMemory<T>(p, arena), StripGradients<T>(p, strip), task, b, segment == 0, dout, o, lse,
                    grads.dq);
    });
    const int64_t first_head = first / chunks, heads = (end - 1) / chunks - first_head + 1;
    parallel_for(heads * 4, [&](int64_t i, int) {
      const int64_t head = first_head + i / 4;
      for (int64_t index = larger(first, head * chunks); index < smaller(end, (head + 1) * chunks); ++index) {
        const Task task = task_at(p, index);
        const Range b = rows_b(task);
        if (segment > 0 && b.size() == 0) continue;
        Arena<T> strip{buffer + (index - first) * strip_size, 0};
        add_task(p, task, b, StripGradients<T>(p, strip), grads, i % 4);
      }
    });
  };
  for (int64_t segment = 0; segment < p.segment_count(); ++segment)
    for (int64_t first = 0; first < tasks; first += at_once) pass(segment, first, smaller(tasks, first + at_once));
}

}  // namespace
}  // namespace simplicial

void CpuKernels::simplicial_attention_grad(const In& dout, const In& q, const In& k1, const In& k2, const In& v1,
                                           const In& v2, const In& o, const In& lse, double scale, bool causal,
                                           int64_t w1, int64_t w2, double k2_bias, double v2_bias, int64_t q_offset,
                                           int64_t k1_offset, int64_t k2_offset, bool determinant, const Out& dq,
                                           const Out& dk1, const Out& dk2, const Out& dv1, const Out& dv2) {
  using namespace simplicial;
  const auto run = [&]<class T>(T) {
    const Problem p = make_problem<T>(q, k1, k2, v1, v2, scale, causal, w1, w2, k2_bias, v2_bias, q_offset, k1_offset,
                                      k2_offset, determinant);
    const Gradients grads = p.a_is_second ? Gradients{dq, dk2, dk1, dv2, dv1} : Gradients{dq, dk1, dk2, dv1, dv2};
    backward<T>(p, dout, o, lse, grads);
  };
  if (q.dtype == DType::kF64)
    run(double{});
  else
    run(float{});
}

}  // namespace llmeff::cpu::LLMEFF_ISA
