// Attention, forward: softmax(scale·q·kᵀ)·v by online softmax over tiles (Dao et al., FlashAttention,
// arXiv:2205.14135).
//
// A task is a chunk of rows of one (batch, key/value head) and, where those are few, a part of the keys. It walks its
// keys in tiles: each is copied and packed once for the chunk, then every strip of rows computes its scores, rescales
// what it has when a running maximum grew, and adds P·V. Each row keeps m (maximum), l (Σ 2^(s − m)) and its unscaled
// output, transposed; those of the parts are merged in their order.
#include "attention_results.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kMinChunk = 160, kMaxChunk = 512;  // rows of a task
constexpr int64_t kPartKeys = 512;                   // of a part, at least

template <class T>
struct ForwardScratch {
  static constexpr int64_t N = kStrip<T>;
  StripMask<T>* masks;                 // of each strip
  T *strips, *out, *maxima, *sums;     // of all strips
  T *panels, *values, *scores, *rows;  // of a tile

  int64_t lay_out(const Attention& x, int64_t chunk, void* base) {
    Arena arena(base);
    const int64_t count = ceil_div(chunk, N);
    masks = arena.take<StripMask<T>>(count);
    strips = arena.take<T>(count * N * x.width);
    out = arena.take<T>(count * N * x.value_width);
    maxima = arena.take<T>(count * N);
    sums = arena.take<T>(count * N);
    panels = arena.take<T>(kKeys * x.width + kLanes<T>);
    values = arena.take<T>(kKeys * padded<T>(x.value_width));
    scores = arena.take<T>(kKeys * N);
    rows = arena.take<T>(N * larger(padded<T>(x.width), padded<T>(x.value_width)));
    return arena.bytes();
  }
};

template <class T>
class Forward {
 public:
  static constexpr int64_t N = kStrip<T>, L = kLanes<T>;
  const Attention& x;
  const In &q, &k, &v;
  const AttentionResults<T>& results;
  const Logits<T> logits;

  // The rows [first, first + count) of one head and the keys [keys.from, keys.to).
  void chunk(int64_t b, int64_t kv_head, int64_t first, int64_t count, int64_t part, Span keys,
             const ForwardScratch<T>& s) const {
    const int64_t strips = ceil_div(count, N), value_width = padded<T>(x.value_width);
    pack_rows(x, q, b, kv_head, first, count, logits.score_factor, s.rows, s.strips);
    int64_t begin = keys.to, end = keys.from;
    for (int64_t i = 0; i < strips; ++i) {
      s.masks[i].fill(x, results.ranges, b, first + i * N, smaller(N, count - i * N));
      begin = smaller(begin, s.masks[i].begin), end = larger(end, s.masks[i].end);
    }
    for (int64_t i = 0; i < strips * N * x.value_width; ++i) s.out[i] = 0;
    for (int64_t i = 0; i < strips * N; ++i) s.sums[i] = 0, s.maxima[i] = -__builtin_inf();

    for (int64_t j0 = larger(keys.from, begin / kKeys * kKeys); j0 < smaller(keys.to, end); j0 += kKeys) {
      const int64_t tile = smaller(kKeys, keys.to - j0);
      pack_keys(k, b, kv_head, j0, tile, s.panels);
      gather_keys(v, b, kv_head, j0, tile, s.values);
      const bool finite = all_finite(s.values, tile * value_width);
      for (int64_t i = 0; i < strips; ++i) {
        const StripMask<T>& mask = s.masks[i];
        const Span span = mask.span(j0, tile);
        if (span.count() == 0) continue;
        const int64_t lanes = count - i * N > L ? N : L;
        T* const out = s.out + i * N * x.value_width;
        multiply_keys(span, tile, x.width, s.panels, s.strips + i * N * x.width, s.scores, N, lanes);
        const bool whole = mask.whole(j0, span);
        softmax(b, mask, whole, j0, span, lanes, s.scores, s.maxima + i * N, s.sums + i * N, out);
        if (whole || finite)
          multiply_transposed(x.value_width, lanes, span.count(), s.values + span.from * value_width, value_width,
                              s.scores + span.from * N, N, N, out, N, true);
        else
          multiply_seen(b, mask, j0, span, lanes, s.scores, s.values, out);
      }
    }
    for (int64_t i = 0; i < strips; ++i) finish(b, kv_head, first + i * N, smaller(N, count - i * N), part, s, i);
  }

 private:
  // Scores of a tile become 2^(s − m); m, the sums and the outputs so far follow.
  void softmax(int64_t b, const StripMask<T>& mask, bool whole, int64_t j0, Span span, int64_t lanes, T* scores,
               T* maxima, T* sums, T* out) const {
    const T minus_infinity = -__builtin_inf();
    for (int64_t lane = 0; lane < lanes; lane += L) {
      const Vec<T> before = load(maxima + lane);
      Vec<T> maximum = before;
      T* const column = scores + lane;
      if (x.softcap > 0)
        for (int64_t j = span.from; j < span.to; ++j)
          store<T>(column + j * N, logits.tanh(load(column + j * N)) * logits.cap);
      if (!whole)
        for (int64_t j = span.from; j < span.to; ++j)
          store<T>(column + j * N, mask.sees(x, b, j0 + j, lane) ? load(column + j * N) : splat(minus_infinity));
      for (int64_t j = span.from; j < span.to; ++j) maximum = vmax<Vec<T>>(load(column + j * N), maximum);
      const Vec<T> shift = maximum == minus_infinity ? Vec<T>{} : maximum;
      Vec<T> total = load(sums + lane);
      if (any_lane<T>(maximum > before)) {
        const Vec<T> factor = vexp2(before - shift);
        total *= factor;
        for (int64_t c = 0; c < x.value_width; ++c) store<T>(out + c * N + lane, load(out + c * N + lane) * factor);
        store<T>(maxima + lane, maximum);
      }
      for (int64_t j = span.from; j < span.to; ++j) {
        const Vec<T> p = vexp2(load(column + j * N) - shift);
        store<T>(column + j * N, p);
        total += p;
      }
      store<T>(sums + lane, total);
    }
  }

  // outᵀ += vᵀ·pᵀ over the keys that each row sees, whatever the values of the others.
  void multiply_seen(int64_t b, const StripMask<T>& mask, int64_t j0, Span span, int64_t lanes, const T* p,
                     const T* values, T* out) const {
    for (int64_t lane = 0; lane < lanes; lane += L)
      for (int64_t c = 0; c < x.value_width; ++c) {
        Vec<T> sum = {};
        for (int64_t j = span.from; j < span.to; ++j) {
          const Vec<T> more = sum + load(p + j * N + lane) * values[j * padded<T>(x.value_width) + c];
          sum = mask.sees(x, b, j0 + j, lane) ? more : sum;
        }
        store<T>(out + c * N + lane, load(out + c * N + lane) + sum);
      }
  }

  void finish(int64_t b, int64_t kv_head, int64_t first, int64_t count, int64_t part, const ForwardScratch<T>& s,
              int64_t i) const {
    unpack_strip(s.out + i * N * x.value_width, x.value_width, s.rows);
    for (int64_t n = 0; n < count; ++n) {
      const int64_t t = (first + n) / x.groups, head = kv_head * x.groups + (first + n) % x.groups;
      results.keep(part, b, t, head, s.maxima[i * N + n], s.sums[i * N + n], s.rows + n * padded<T>(x.value_width));
    }
  }
};

template <class T>
void attention_of(const Attention& x, const In& q, const In& k, const In& v, const Out& o, const Out& lse) {
  const int64_t heads = x.batch * x.kv_heads;
  // Long chunks share the packing of keys; short ones make tasks. What is left too long is cut by keys.
  const int64_t wanted = round_up(ceil_div(heads * x.rows(), kMinTasks), kStrip<T>);
  const int64_t most = smaller(kMaxChunk, larger(smaller(x.rows(), kMinChunk), wanted));
  const int64_t chunk = round_up(ceil_div(x.rows(), ceil_div(x.rows(), most)), kStrip<T>);
  const int64_t chunks = ceil_div(x.rows(), chunk);
  const int64_t cuts = larger(1, smaller(ceil_div(kMinTasks, heads * chunks), x.keys / kPartKeys));
  const int64_t part_keys = round_up(ceil_div(x.keys, cuts), kKeys), parts = ceil_div(x.keys, part_keys);

  const AttentionResults<T> results(x, o, lse, parts);
  const Forward<T> forward = {x, q, k, v, results, Logits<T>(x)};
  ForwardScratch<T> sizes;
  const int64_t bytes = sizes.lay_out(x, chunk, nullptr);
  // The chunks that see the most keys come first.
  parallel_for(heads * chunks * parts, [&](int64_t task, int worker) {
    ForwardScratch<T> scratch;
    scratch.lay_out(x, chunk, worker_scratch<char>(worker, bytes));
    const int64_t head = task % heads, first = (chunks - 1 - task / heads % chunks) * chunk;
    const int64_t part = task / (heads * chunks), from = part * part_keys;
    forward.chunk(head / x.kv_heads, head % x.kv_heads, first, smaller(chunk, x.rows() - first), part,
                  {from, smaller(x.keys, from + part_keys)}, scratch);
  });
  results.merge();
}

template <class T>
void attention_any(const Attention& x, const In& q, const In& k, const In& v, const Out& o, const Out& lse) {
  if (x.rows() <= kFewRows) return attention_of_few<T>(x, q, k, v, o, lse);
  attention_of<T>(x, q, k, v, o, lse);
}

}  // namespace

void CpuKernels::attention(const In& q, const In& k, const In& v, const In& q_doc, const In& k_doc, const In& prefix,
                           double scale, bool causal, int64_t window, int64_t q_offset, double softcap, const Out& o,
                           const Out& lse) {
  const Attention x = attention_shape(q, k, v, q_doc, k_doc, prefix, scale, causal, window, q_offset, softcap);
  if (q.dtype == DType::kF64) return attention_any<double>(x, q, k, v, o, lse);
  attention_any<float>(x, q, k, v, o, lse);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
