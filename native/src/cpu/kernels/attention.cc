// Attention, forward: softmax(scale·q·kᵀ)·v by online softmax over tiles (Dao et al., FlashAttention,
// arXiv:2205.14135).
//
// A task is a chunk of rows of one (batch, key/value head). It walks the keys in tiles: each is copied and packed once
// for the chunk, then every block of rows computes its scores, rescales what it has when its running maximum grew, and
// adds P·V. Each row keeps m (maximum), l (Σ exp(s − m), one sum a lane) and its unscaled output.
#include "attention_tile.h"
#include "llmeff/parallel.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kMinChunk = 168, kMaxChunk = 512;  // rows of a task

template <class T>
struct ForwardScratch {
  T *queries, *panels, *strips, *values, *scores, *out, *sums, *maxima;

  static int64_t elements(const Attention& x, int64_t chunk) {
    ForwardScratch s;
    return s.lay_out(x, chunk, nullptr);
  }
  // Sets the pointers into `base` and returns the number of elements.
  int64_t lay_out(const Attention& x, int64_t chunk, T* base) {
    int64_t used = 0;
    const auto take = [&](int64_t count) {
      T* const p = base + used;
      used += round_up(count, 16);
      return p;
    };
    const int64_t d = padded<T>(x.width), dv = padded<T>(x.value_width);
    queries = take(kQueryRows * d);
    panels = take(chunk * x.width + kLanes<T>);
    strips = take(round_up(kKeys, kStrip<T>) * x.width + kLanes<T>);
    values = take(kKeys * dv);
    scores = take(kQueryRows * kKeys);
    out = take(chunk * dv);
    sums = take(chunk * kLanes<T>);
    maxima = take(chunk);
    return used;
  }
};

// One row of scores becomes exp(s − m); m, the sum and the output so far follow.
template <class T>
LLMEFF_INLINE void softmax_row(const Attention& x, int64_t r, int64_t j0, int64_t columns, T* s, T& maximum, T* sum,
                               T* out) {
  constexpr int64_t L = kLanes<T>;
  const T minus_infinity = -__builtin_inf();
  const RowMask<T> mask(x, r, j0, columns);
  Vec<T> highest = splat(maximum);
  if (x.softcap > 0 || !mask.whole) {
    const T cap = static_cast<T>(x.softcap), inverse = static_cast<T>(1 / x.softcap);
    for (int64_t j = 0; j < columns; j += L) {
      Vec<T> score = load(s + j);
      if (x.softcap > 0) score = capped_tanh<T>(score * inverse) * cap;
      score = mask.at(j) ? score : splat(minus_infinity);
      store<T>(s + j, score);
      highest = vmax<Vec<T>>(score, highest);
    }
  } else {
    for (int64_t j = 0; j < columns; j += L) highest = vmax<Vec<T>>(load(s + j), highest);
  }
  const T now = lane_max<T>(highest);
  const T shift = now == minus_infinity ? T{0} : now;
  Vec<T> total = load(sum);
  if (now > maximum) {
    const Vec<T> factor = vexp(splat(maximum - shift));
    total *= factor;
    for (int64_t i = 0; i < padded<T>(x.value_width); i += L) store<T>(out + i, load(out + i) * factor);
    maximum = now;
  }
  for (int64_t j = 0; j < columns; j += L) {
    const Vec<T> p = vexp(load(s + j) - splat(shift));
    store<T>(s + j, p);
    total += p;
  }
  store<T>(sum, total);
}

template <class T>
void forward_chunk(const Attention& x, const In& q, const In& k, const In& v, const Out& o, const Out& lse, int64_t b,
                   int64_t kv_head, int64_t first, int64_t count, const ForwardScratch<T>& s) {
  constexpr int64_t L = kLanes<T>, N = kStrip<T>;
  const int64_t dv = padded<T>(x.value_width), d = padded<T>(x.width);
  const int64_t block = block_rows(count);
  for (int64_t r0 = 0; r0 < count; r0 += block) {
    const int64_t rows = smaller(block, count - r0);
    gather_queries(x, q, b, kv_head, first + r0, rows, static_cast<T>(x.scale), s.queries);
    pack_a(s.queries, d, 1, rows, x.width, s.panels + r0 * x.width, panel_rows(rows));
  }
  for (int64_t i = 0; i < count * dv; ++i) s.out[i] = 0;
  for (int64_t i = 0; i < count * L; ++i) s.sums[i] = 0;
  for (int64_t i = 0; i < count; ++i) s.maxima[i] = -__builtin_inf();

  const int64_t begin = x.first_key(first / x.groups) / kKeys * kKeys,
                end = x.last_key((first + count - 1) / x.groups) + 1;
  for (int64_t j0 = begin; j0 < end; j0 += kKeys) {
    const int64_t keys = smaller(kKeys, x.keys - j0);
    pack_keys(k, b, kv_head, j0, keys, s.strips);
    gather_keys(v, b, kv_head, j0, keys, s.values);
    const bool exact = !all_visible(x, first, first + count, j0, keys) && !all_finite(s.values, keys * dv);
    for (int64_t r0 = 0; r0 < count; r0 += block) {
      const int64_t rows = smaller(block, count - r0);
      const int64_t seen = visible_columns(x, first + r0, first + r0 + rows, j0, keys);
      if (seen == 0) continue;
      const int64_t columns = round_up(seen, L);
      multiply_packed<T>(rows, columns, x.width, s.panels + r0 * x.width, panel_rows(rows), s.strips, N, N * x.width,
                         {s.scores, kKeys, false, nullptr});
      for (int64_t i = 0; i < rows; ++i)
        softmax_row(x, first + r0 + i, j0, columns, s.scores + i * kKeys, s.maxima[r0 + i], s.sums + (r0 + i) * L,
                    s.out + (r0 + i) * dv);
      if (!exact) {
        multiply_rows<T, kKeys>(rows, dv, seen, s.scores, s.values, dv, N, s.out + r0 * dv, dv, true);
        continue;
      }
      for (int64_t i = 0; i < rows; ++i) {
        const Range own = visible_range(x, first + r0 + i, j0, keys);
        if (own.from < own.to)
          multiply_rows<T, kKeys>(1, dv, own.to - own.from, s.scores + i * kKeys + own.from, s.values + own.from * dv,
                                  dv, N, s.out + (r0 + i) * dv, dv, true);
      }
    }
  }

  for (int64_t i = 0; i < count; ++i) {
    const int64_t t = (first + i) / x.groups, head = kv_head * x.groups + (first + i) % x.groups;
    const T sum = reduce_sum<T>(load(s.sums + i * L));
    const bool empty = x.last_key(t) < x.first_key(t);
    lse.as<T>()[(b * x.heads + head) * x.queries + t] =
        empty ? static_cast<T>(-__builtin_inf())
              : s.maxima[i] + static_cast<T>(__builtin_log(static_cast<double>(sum)));
    T* const to = o.as<T>() + b * o.strides[0] + t * o.strides[1] + head * o.strides[2];
    const T inverse = sum == 0 ? T{0} : T{1} / sum;
    write_row(s.out + i * dv, x.value_width, inverse, to, o.strides[3]);
  }
}

template <class T>
void attention_of(const Attention& x, const In& q, const In& k, const In& v, const Out& o, const Out& lse) {
  const int64_t heads = x.batch * x.kv_heads;
  // Long chunks share the packing of keys; short ones make tasks.
  const int64_t chunk =
      smaller(kMaxChunk, larger(smaller(x.rows(), kMinChunk), block_rows(divide_up(heads * x.rows(), kMinTasks))));
  const int64_t chunks = divide_up(x.rows(), chunk), even = divide_up(x.rows(), chunks);
  const int64_t elements = ForwardScratch<T>::elements(x, even);
  // The chunks that see the most keys come first.
  parallel_for(heads * chunks, [&](int64_t task, int worker) {
    ForwardScratch<T> scratch;
    scratch.lay_out(x, even, worker_scratch<T>(worker, elements));
    const int64_t head = task % heads, first = (chunks - 1 - task / heads) * even;
    if (first >= x.rows()) return;
    forward_chunk(x, q, k, v, o, lse, head / x.kv_heads, head % x.kv_heads, first, smaller(even, x.rows() - first),
                  scratch);
  });
}

}  // namespace

void CpuKernels::attention(const In& q, const In& k, const In& v, double scale, bool causal, int64_t window,
                           int64_t q_offset, double softcap, const Out& o, const Out& lse) {
  const Attention x = attention_shape(q, k, v, scale, causal, window, q_offset, softcap);
  if (q.dtype == DType::kF64) return attention_of<double>(x, q, k, v, o, lse);
  attention_of<float>(x, q, k, v, o, lse);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
