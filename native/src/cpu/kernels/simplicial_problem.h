// 2-simplicial attention as its kernels see it. The operation is symmetric in its two key/value pairs, so the one with
// the shorter window is called a ("short", element-wise side) and the other b ("long", the side of the matrix
// products). For one query head at position i and every short row r in its window, the logits of all long rows are one
// row of a matrix product:
//   A_r = q ∘ ka_r,   S_r = scale · A_r Kbᵀ,   o = Σ_r (P_r Vb) ∘ va_r,   one softmax over all r and all long rows
// (determinant form: A_r = ka_r × q in chunks of 3 channels, ka negated when index 1 is the short side). A token's
// windows are ranges, so this is a full rectangle: no masks, and no pair outside the windows is ever computed.
//
// Kernels work on chunks of consecutive tokens of one (batch, kv head); the rows that a chunk sees are packed as
// contiguous "strips" with the biases added and, in the determinant form, with the channels in planes (x of all chunks,
// then y, z, the D mod 3 rest). Long rows come in segments of kSegment where a chunk sees more.
#pragma once

#include "gemm_tile.h"
#include "llmeff/kernels.h"
#include "simplicial_tiles.h"

namespace llmeff::cpu::LLMEFF_ISA::simplicial {

inline constexpr int64_t kRowBlock = 48;  // rows (heads × short rows) of one matrix product
inline constexpr int64_t kKeyTile =
    128;  // long rows of one: with D = 128 its keys and values stay in the second-level cache
inline constexpr int64_t kSegment = 2048;  // long rows of a strip: memory does not grow with an unlimited window
inline constexpr double kLog2E = 1.44269504088896340736;
inline constexpr double kLn2 = 0.69314718055994530942;

struct Range {
  int64_t begin, end;
  LLMEFF_INLINE int64_t size() const { return end - begin; }
};
LLMEFF_INLINE Range intersection(Range x, Range y) {
  const int64_t begin = larger(x.begin, y.begin);
  return {begin, larger(begin, smaller(x.end, y.end))};
}

// Elements between rows: a multiple of the vector, and for long rows an odd number of cache lines, so that equal
// columns of consecutive rows do not share a cache set.
template <class T>
LLMEFF_INLINE int64_t row_stride(int64_t n) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  const int64_t lines = (n + kLine - 1) / kLine;
  return (lines >= 4 ? lines | 1 : lines) * kLine;
}

// One key/value pair.
struct Side {
  View k, v;
  double k_bias = 0, v_bias = 0;
  int64_t window = 0;  // 0: unlimited
  int64_t offset = 0;
  double sign = 1;  // of its 3-chunk channels, in the determinant form
  LLMEFF_INLINE int64_t rows() const { return k.shape[1]; }
  LLMEFF_INLINE int64_t reach() const { return window > 0 && window < rows() ? window : rows(); }
};

struct Problem {
  View q;
  Side a, b;
  bool a_is_second;  // the short side is (k2, v2)
  double scale;
  bool causal;
  int64_t q_offset;
  int64_t batch, tokens, heads, kv_heads, group, d, dv;
  int64_t chunks3;   // 3-chunks of the determinant form; 0 in the trilinear form
  int64_t ldk, ldv;  // row strides of packed keys and values
  int64_t chunk;     // tokens of a task; from shapes only, never from the number of threads

  LLMEFF_INLINE int64_t chunk_count() const { return (tokens + chunk - 1) / chunk; }
  LLMEFF_INLINE int64_t task_count() const { return batch * kv_heads * chunk_count(); }
  // Rows of a side that the tokens [first, last] see; empty when they see none.
  LLMEFF_INLINE Range rows_of(const Side& side, int64_t first, int64_t last) const {
    if (!causal) return {0, side.rows()};
    const int64_t shift = q_offset - side.offset;
    const int64_t begin = side.window > 0 ? larger(0, first + shift - side.window + 1) : 0;
    const int64_t end = smaller(side.rows(), last + shift + 1);
    return {begin, larger(begin, end)};
  }
  // The most rows of a side that a chunk sees.
  LLMEFF_INLINE int64_t reach_of(const Side& side) const {
    return causal && side.window > 0 ? smaller(side.rows(), side.window + chunk - 1) : side.rows();
  }
  // The rows of b that a chunk sees are packed a segment at a time.
  LLMEFF_INLINE int64_t segment_count() const { return larger(1, ceil_div(reach_of(b), kSegment)); }
  LLMEFF_INLINE Range segment_of(Range rows, int64_t segment) const {
    return intersection(rows, {rows.begin + segment * kSegment, rows.begin + (segment + 1) * kSegment});
  }
  LLMEFF_INLINE int64_t longest_strip_a() const { return reach_of(a); }
  LLMEFF_INLINE int64_t longest_strip_b() const { return smaller(reach_of(b), kSegment); }
};

template <class T>
LLMEFF_INLINE Problem make_problem(const In& q, const In& k1, const In& k2, const In& v1, const In& v2, double scale,
                                   bool causal, int64_t w1, int64_t w2, double k2_bias, double v2_bias,
                                   int64_t q_offset, int64_t k1_offset, int64_t k2_offset, bool determinant) {
  Problem p{};
  p.q = q;
  Side first, second;
  first.k = k1, first.v = v1, first.window = w1, first.offset = k1_offset, first.sign = -1;
  second.k = k2, second.v = v2, second.window = w2, second.offset = k2_offset;
  second.k_bias = k2_bias, second.v_bias = v2_bias;
  p.a_is_second = second.reach() <= first.reach();
  p.a = p.a_is_second ? second : first;
  p.b = p.a_is_second ? first : second;
  p.b.sign = 1;
  p.scale = scale;
  p.causal = causal;
  p.q_offset = q_offset;
  p.batch = q.shape[0], p.tokens = q.shape[1], p.heads = q.shape[2], p.d = q.shape[3];
  p.kv_heads = k1.shape[2], p.group = p.heads / p.kv_heads, p.dv = v1.shape[3];
  p.chunks3 = determinant ? p.d / 3 : 0;
  p.ldk = row_stride<T>(p.d), p.ldv = row_stride<T>(p.dv);
  p.chunk = 64;
  while (p.chunk > 4 && p.task_count() < 16) p.chunk /= 2;
  return p;
}

struct Task {
  int64_t batch, kv_head;
  int64_t first, last;  // tokens, inclusive
};

LLMEFF_INLINE Task task_at(const Problem& p, int64_t index) {
  const int64_t chunks = p.chunk_count();
  const int64_t first = index % chunks * p.chunk, head = index / chunks;
  return {head / p.kv_heads, head % p.kv_heads, first, smaller(first + p.chunk, p.tokens) - 1};
}

// Hands out pieces of one allocation. With a null base it only counts.
template <class T>
struct Arena {
  T* base = nullptr;
  int64_t used = 0;
  LLMEFF_INLINE T* take(int64_t count) {
    T* piece = base == nullptr ? nullptr : base + used;
    used += round_up(count, 64 / static_cast<int64_t>(sizeof(T)));
    return piece;
  }
};

// Every NaN as the one that arithmetic makes, for vexp2.
template <class T>
LLMEFF_INLINE T plain_nan(T x) {
  return x == x ? x : static_cast<T>(__builtin_nan(""));
}

// dst[0, ld) = factor · (src + bias), channels in planes when chunks3 > 0 (and these with the sign), zeros behind.
template <class T>
LLMEFF_INLINE void pack_row(T* __restrict dst, const T* __restrict src, int64_t n, int64_t ld, T bias, T factor,
                            int64_t chunks3, T sign) {
  for (int64_t c = 0; c < chunks3; ++c) {
    dst[c] = plain_nan((src[3 * c] + bias) * factor * sign);
    dst[chunks3 + c] = plain_nan((src[3 * c + 1] + bias) * factor * sign);
    dst[2 * chunks3 + c] = plain_nan((src[3 * c + 2] + bias) * factor * sign);
  }
  for (int64_t c = 3 * chunks3; c < n; ++c) dst[c] = plain_nan((src[c] + bias) * factor);
  for (int64_t c = n; c < ld; ++c) dst[c] = 0;
}

// dst = factor · src, or dst += when kAdd, back in the order of channels of the caller.
template <bool kAdd, class T>
LLMEFF_INLINE void unpack_row(T* __restrict dst, const T* __restrict src, int64_t n, T factor, int64_t chunks3,
                              T sign) {
  for (int64_t c = 0; c < chunks3; ++c)
    for (int64_t i = 0; i < 3; ++i)
      dst[3 * c + i] = (kAdd ? dst[3 * c + i] : T{0}) + src[i * chunks3 + c] * factor * sign;
  for (int64_t c = 3 * chunks3; c < n; ++c) dst[c] = (kAdd ? dst[c] : T{0}) + src[c] * factor;
}

template <class T>
LLMEFF_INLINE const T* row_at(const View& x, int64_t batch, int64_t row, int64_t head) {
  return x.as<T>() + batch * x.strides[0] + row * x.strides[1] + head * x.strides[2];
}

template <class T>
LLMEFF_INLINE void prefetch_row(const View& x, int64_t batch, int64_t row, int64_t head) {
  const T* at = row_at<T>(x, batch, row, head);
  for (int64_t c = 0; c < x.shape[3]; c += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(at + c);
}
// Asks for token t of a group's heads before it is needed: its rows are far apart in memory.
template <class T>
LLMEFF_INLINE void prefetch_token(const View& x, const Task& task, int64_t t, int64_t group) {
  if (t > task.last) return;
  for (int64_t h = 0; h < group; ++h) prefetch_row<T>(x, task.batch, t, task.kv_head * group + h);
}

// One strip: the rows of x, plus bias, to dst[rows, ld].
template <class T>
LLMEFF_INLINE void pack_strip(const View& x, const Task& task, Range rows, double bias, int64_t chunks3, double sign,
                              T* dst, int64_t ld) {
  constexpr int64_t kAhead = 12;
  for (int64_t r = rows.begin; r < smaller(rows.end, rows.begin + kAhead); ++r)
    prefetch_row<T>(x, task.batch, r, task.kv_head);
  for (int64_t r = rows.begin; r < rows.end; ++r, dst += ld) {
    if (r + kAhead < rows.end) prefetch_row<T>(x, task.batch, r + kAhead, task.kv_head);
    pack_row<T>(dst, row_at<T>(x, task.batch, r, task.kv_head), x.shape[3], ld, static_cast<T>(bias), T{1}, chunks3,
                static_cast<T>(sign));
  }
}
template <class T>
LLMEFF_INLINE void pack_keys(const Problem& p, const Side& side, const Task& task, Range rows, T* dst) {
  pack_strip(side.k, task, rows, side.k_bias, p.chunks3, side.sign, dst, p.ldk);
}
template <class T>
LLMEFF_INLINE void pack_values(const Problem& p, const Side& side, const Task& task, Range rows, T* dst) {
  pack_strip(side.v, task, rows, side.v_bias, 0, 1, dst, p.ldv);
}

// dst[c, row] = src[row, c]; two vectors of zeros behind every row of dst, which a tile may read.
template <class T>
LLMEFF_INLINE void transpose_strip(const T* src, int64_t rows, int64_t channels, int64_t ld_src, T* dst,
                                   int64_t ld_dst) {
  pack_transposed(src, ld_src, dst, ld_dst, rows, channels);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < 2 * kLanes<T>; i += kLanes<T>) store(dst + c * ld_dst + rows + i, Vec<T>{});
}
template <class T>
LLMEFF_INLINE int64_t transposed_stride(int64_t rows) {
  return row_stride<T>(rows + 2 * kLanes<T>);
}

// dst = short ∘ x, or short × x in the planes of the determinant form.
template <class T>
LLMEFF_INLINE void short_product(T* __restrict dst, const T* __restrict s, const T* __restrict x, int64_t n,
                                 int64_t chunks3) {
  if (chunks3 == 0) {
#pragma GCC unroll 4
    for (int64_t c = 0; c < n; c += kLanes<T>) store(dst + c, load(s + c) * load(x + c));
    return;
  }
  const int64_t y = chunks3, z = 2 * chunks3;
  for (int64_t c = 0; c < chunks3; ++c) {
    dst[c] = s[y + c] * x[z + c] - s[z + c] * x[y + c];
    dst[y + c] = s[z + c] * x[c] - s[c] * x[z + c];
    dst[z + c] = s[c] * x[y + c] - s[y + c] * x[c];
  }
  for (int64_t c = 3 * chunks3; c < n; ++c) dst[c] = s[c] * x[c];
}

// The rows of one matrix product: `heads` query heads from `head`, each with `shorts` short rows from `first` (strip
// index); row = h · shorts + r.
struct RowBlock {
  int64_t head, heads, first, shorts;
  LLMEFF_INLINE int64_t rows() const { return heads * shorts; }
};

// All (head, short row) pairs of one token in blocks of up to kRowBlock rows.
template <class F>
LLMEFF_INLINE void for_row_blocks(int64_t heads, Range shorts, const F& body) {
  const int64_t per_block = larger(1, kRowBlock / shorts.size());
  for (int64_t h = 0; h < heads; h += per_block)
    for (int64_t r = shorts.begin; r < shorts.end; r += kRowBlock)
      body(RowBlock{h, smaller(per_block, heads - h), r, smaller(kRowBlock, shorts.end - r)});
}

}  // namespace llmeff::cpu::LLMEFF_ISA::simplicial
