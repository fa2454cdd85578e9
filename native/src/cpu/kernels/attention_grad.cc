// Attention, backward (Dao et al., FlashAttention, arXiv:2205.14135): with P recomputed as exp(s − lse) and δ = Σ
// dout∘o − dlse per row,
//   dv = Pᵀ·dout,  dS = P ∘ (dout·vᵀ − δ) ∘ (1 − tanh²(s/softcap)),  dq = scale·dS·k,  dk = scale·dSᵀ·q.
//
// A task owns one (batch, key/value head): its keys meet all rows of the group, so dk and dv need no sharing and dq is
// summed over key tiles in order. Where there are few heads the keys are cut into parts by their number alone; each
// part then writes a partial dq of its own, added afterwards in order. Rows go in chunks, to bound the memory of long
// sequences, and within them in blocks of kBlockRows, over which dk and dv are summed in registers.
#include "attention_tile.h"
#include "llmeff/parallel.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kChunk = 512;
constexpr int64_t kBlockRows = 64;        // whole strips
constexpr int64_t kPartKeys = 4 * kKeys;  // of a part, at least

template <class T>
struct BackwardScratch {
  static constexpr int64_t N = kStrip<T>;
  StripMask<T>* masks;
  T *queries, *douts, *query_strips, *dout_strips, *dq, *lse, *delta;  // of a chunk of rows
  T *keys, *key_panels, *value_panels, *dk, *dv;                       // of a tile of keys
  T *p, *ds, *rows;

  int64_t lay_out(const Attention& x, int64_t chunk, void* base) {
    Arena arena(base);
    const int64_t width = padded<T>(x.width), value_width = padded<T>(x.value_width), lanes = round_up(chunk, N);
    masks = arena.take<StripMask<T>>(lanes / N);
    queries = arena.take<T>(chunk * width), douts = arena.take<T>(chunk * value_width);
    query_strips = arena.take<T>(lanes * x.width), dout_strips = arena.take<T>(lanes * x.value_width);
    dq = arena.take<T>(lanes * x.width);
    lse = arena.take<T>(lanes), delta = arena.take<T>(lanes);
    keys = arena.take<T>(kKeys * width), dk = arena.take<T>(kKeys * width), dv = arena.take<T>(kKeys * value_width);
    key_panels = arena.take<T>(kKeys * x.width + kLanes<T>);
    value_panels = arena.take<T>(kKeys * x.value_width + kLanes<T>);
    p = arena.take<T>(kKeys * kBlockRows), ds = arena.take<T>(kKeys * kBlockRows);
    rows = arena.take<T>(N * larger(width, value_width));
    return arena.bytes();
  }
};

struct Head {
  int64_t b, kv_head;
};

// Adds a tile of accumulated rows to those of a contiguous [B, S, K, width] gradient.
template <class T>
void add_rows(const T* from, int64_t count, int64_t width, T* to, int64_t step) {
  constexpr int64_t L = kLanes<T>;
  for (int64_t j = 0; j < count; ++j, from += padded<T>(width), to += step) {
    int64_t i = 0;
    for (; i + L <= width; i += L) store<T>(to + i, load(to + i) + load(from + i));
    for (; i < width; ++i) to[i] += from[i];
  }
}

template <class T>
void clear(T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = 0;
}

// A gradient [batch, row, head, channel], heads and channels contiguous.
template <class T>
struct Gradient {
  T* data;
  int64_t batch_stride, row_stride;

  static Gradient of(const View& x) { return {x.as<T>(), x.strides[0], x.strides[1]}; }
  T* row(int64_t b, int64_t t, int64_t channel) const { return data + b * batch_stride + t * row_stride + channel; }
};

template <class T>
class Backward {
 public:
  static constexpr int64_t N = kStrip<T>, L = kLanes<T>;
  const Attention& x;
  const In &dout, &dlse, &q, &k, &v, &o, &lse;
  const KeyRange* ranges;
  const Gradient<T> dk, dv;
  const Logits<T> logits;

  // The keys [first, last) of one head and all rows; dq receives their part of the sum.
  void part(Head head, int64_t first, int64_t last, const Gradient<T>& dq, int64_t chunk,
            const BackwardScratch<T>& s) const {
    const auto dk_row = [&](int64_t j) { return dk.row(head.b, j, head.kv_head * x.width); };
    const auto dv_row = [&](int64_t j) { return dv.row(head.b, j, head.kv_head * x.value_width); };
    for (int64_t j = first; j < last; ++j) {
      clear(dk_row(j), x.width);
      clear(dv_row(j), x.value_width);
    }
    for (int64_t c0 = 0; c0 < x.rows(); c0 += chunk) {
      const int64_t count = smaller(chunk, x.rows() - c0);
      const Span seen = keys_seen(head.b, c0, count);
      const int64_t begin = larger(first, seen.from / kKeys * kKeys), end = smaller(last, seen.to);
      if (begin >= end) {
        clear_dq(head, c0, count, dq);
        continue;
      }
      load_rows(head, c0, count, s);
      const bool finite =
          all_finite(s.queries, count * padded<T>(x.width)) && all_finite(s.douts, count * padded<T>(x.value_width));
      for (int64_t j0 = begin; j0 < end; j0 += kKeys) {
        const int64_t keys = smaller(kKeys, last - j0);
        tile(head, count, j0, keys, finite, s);
        add_rows(s.dk, keys, x.width, dk_row(j0), dk.row_stride);
        add_rows(s.dv, keys, x.value_width, dv_row(j0), dv.row_stride);
      }
      write_dq(head, c0, count, dq, s);
    }
  }

 private:
  // The keys that some row of a chunk sees.
  Span keys_seen(int64_t b, int64_t c0, int64_t count) const {
    Span seen = {x.keys, 0};
    for (int64_t t = c0 / x.groups; t <= (c0 + count - 1) / x.groups; ++t) {
      const KeyRange& range = ranges[b * x.queries + t];
      seen = {smaller(seen.from, range.first), larger(seen.to, range.last + 1)};
    }
    return seen;
  }

  // Copies, scales and packs the rows of a chunk; their masks, lse (to base 2) and δ.
  void load_rows(Head head, int64_t c0, int64_t count, const BackwardScratch<T>& s) const {
    const int64_t value_width = padded<T>(x.value_width);
    gather_rows(x, q, head.b, head.kv_head, c0, count, static_cast<T>(x.scale), s.queries);
    gather_rows(x, dout, head.b, head.kv_head, c0, count, T{1}, s.douts);
    pack_rows(x, q, head.b, head.kv_head, c0, count, logits.score_factor, s.rows, s.query_strips);
    pack_rows(x, dout, head.b, head.kv_head, c0, count, T{1}, s.rows, s.dout_strips);
    for (int64_t i = 0; i < count; ++i) {
      gather_rows(x, o, head.b, head.kv_head, c0 + i, 1, T{1}, s.rows);
      Vec<T> sum = {};
      for (int64_t c = 0; c < value_width; c += L) sum += load(s.rows + c) * load(s.douts + i * value_width + c);
      const int64_t t = (c0 + i) / x.groups, h = head.kv_head * x.groups + (c0 + i) % x.groups;
      const int64_t at = (head.b * x.heads + h) * x.queries + t;
      s.delta[i] = reduce_sum<T>(sum) - (dlse.present() ? dlse.as<const T>()[at] : T{0});
      s.lse[i] = static_cast<T>(static_cast<double>(lse.as<const T>()[at]) * kLog2E);
    }
    const int64_t lanes = round_up(count, N);
    for (int64_t i = count; i < lanes; ++i) s.delta[i] = s.lse[i] = 0;
    clear(s.dq, lanes * x.width);
    for (int64_t i = 0; i < count; i += N) s.masks[i / N].fill(x, ranges, head.b, c0 + i, smaller(N, count - i));
  }

  // One tile of keys against all blocks of rows of the chunk: fills s.dk, s.dv and adds to s.dq.
  void tile(Head head, int64_t count, int64_t j0, int64_t keys, bool finite_rows, const BackwardScratch<T>& s) const {
    const int64_t width = padded<T>(x.width), value_width = padded<T>(x.value_width);
    gather_keys(k, head.b, head.kv_head, j0, keys, s.keys);
    pack_keys(k, head.b, head.kv_head, j0, keys, s.key_panels);
    pack_keys(v, head.b, head.kv_head, j0, keys, s.value_panels);
    clear(s.dk, keys * width);
    clear(s.dv, keys * value_width);
    const bool finite = finite_rows && all_finite(s.keys, keys * width);
    for (int64_t r0 = 0; r0 < count; r0 += kBlockRows) {
      const int64_t rows = smaller(kBlockRows, count - r0);
      // Strips that see the same columns are one product.
      Span common = {0, 0};
      int64_t begin = r0;
      for (int64_t r = r0; r < r0 + rows; r += N) {
        const int64_t lanes = r0 + rows - r > L ? N : L;
        const StripMask<T>& mask = s.masks[r / N];
        const Span span = mask.span(j0, keys);
        const bool whole = mask.whole(j0, span);
        T *const p = s.p + (r - r0), *const ds = s.ds + (r - r0);
        if (span.count() > 0) {
          multiply_keys(span, keys, x.width, s.key_panels, s.query_strips + r * x.width, p, kBlockRows, lanes);
          multiply_keys(span, keys, x.value_width, s.value_panels, s.dout_strips + r * x.value_width, ds, kBlockRows,
                        lanes);
          slopes(head.b, mask, whole, j0, span, lanes, s.lse + r, s.delta + r, p, ds);
        }
        const bool exact = !whole && !finite;
        if (exact || span.from != common.from || span.to != common.to) {
          add_key_gradients(begin, r, r0, common, s);
          begin = r, common = span;
        }
        if (exact) {
          multiply_seen(head.b, mask, j0, span, r, smaller(N, r0 + rows - r), p, ds, s);
          begin = r + N, common = {0, 0};
        } else if (span.count() > 0) {
          multiply_transposed(x.width, lanes, span.count(), s.keys + span.from * width, width,
                              ds + span.from * kBlockRows, kBlockRows, N, s.dq + r * x.width, N, true);
        }
      }
      add_key_gradients(begin, r0 + rows, r0, common, s);
    }
  }

  // Of one strip: scores in p become probabilities, dout·vᵀ in ds becomes dS.
  void slopes(int64_t b, const StripMask<T>& mask, bool whole, int64_t j0, Span span, int64_t lanes, const T* lse,
              const T* delta, T* p, T* ds) const {
    for (int64_t lane = 0; lane < lanes; lane += L) {
      const Vec<T> shift = load(lse + lane), mean = load(delta + lane);
      for (int64_t at = span.from * kBlockRows + lane, j = span.from; j < span.to; ++j, at += kBlockRows) {
        Vec<T> score = load(p + at), slope = load(ds + at) - mean;
        if (x.softcap > 0) {
          const Vec<T> turned = logits.tanh(score);
          score = turned * logits.cap;
          slope *= T{1} - turned * turned;
        }
        Vec<T> weight = vexp2(score - shift);
        slope *= weight;
        if (!whole) {
          const Mask<T> seen = mask.sees(x, b, j0 + j, lane);
          weight = seen ? weight : Vec<T>{};
          slope = seen ? slope : Vec<T>{};
        }
        store<T>(p + at, weight);
        store<T>(ds + at, slope);
      }
    }
  }

  // dv += Pᵀ·dout and dk += dSᵀ·q for the rows [begin, end) of the block from r0.
  void add_key_gradients(int64_t begin, int64_t end, int64_t r0, Span keys, const BackwardScratch<T>& s) const {
    const int64_t width = padded<T>(x.width), value_width = padded<T>(x.value_width), rows = end - begin;
    if (rows <= 0 || keys.count() == 0) return;
    const int64_t at = keys.from * kBlockRows + begin - r0;
    multiply_rows<T, kBlockRows>(keys.count(), value_width, rows, s.p + at, s.douts + begin * value_width, value_width,
                                 N, s.dv + keys.from * value_width, value_width, true);
    multiply_rows<T, kBlockRows>(keys.count(), width, rows, s.ds + at, s.queries + begin * width, width, N,
                                 s.dk + keys.from * width, width, true);
  }

  // The products of one strip over the keys that each row sees, whatever the numbers of the others.
  void multiply_seen(int64_t b, const StripMask<T>& mask, int64_t j0, Span span, int64_t r, int64_t rows, const T* p,
                     const T* ds, const BackwardScratch<T>& s) const {
    const int64_t width = padded<T>(x.width), value_width = padded<T>(x.value_width);
    T* const dq = s.dq + r * x.width;
    for (int64_t j = span.from; j < span.to; ++j)
      for (int64_t i = 0; i < rows; ++i) {
        if (!mask.row_sees(x, b, j0 + j, i)) continue;
        const T weight = p[j * kBlockRows + i], slope = ds[j * kBlockRows + i];
        add_multiple(weight, s.douts + (r + i) * value_width, value_width, s.dv + j * value_width);
        add_multiple(slope, s.queries + (r + i) * width, width, s.dk + j * width);
        for (int64_t c = 0; c < x.width; ++c) dq[c * N + i] += slope * s.keys[j * width + c];
      }
  }

  void write_dq(Head head, int64_t c0, int64_t count, const Gradient<T>& dq, const BackwardScratch<T>& s) const {
    for (int64_t r = 0; r < count; r += N) {
      unpack_strip(s.dq + r * x.width, x.width, s.rows);
      for (int64_t i = 0; i < smaller(N, count - r); ++i)
        write_row(s.rows + i * padded<T>(x.width), x.width, static_cast<T>(x.scale), dq_row(head, c0 + r + i, dq));
    }
  }
  void clear_dq(Head head, int64_t c0, int64_t count, const Gradient<T>& dq) const {
    for (int64_t r = c0; r < c0 + count; ++r) clear(dq_row(head, r, dq), x.width);
  }
  T* dq_row(Head head, int64_t r, const Gradient<T>& dq) const {
    return dq.row(head.b, r / x.groups, (head.kv_head * x.groups + r % x.groups) * x.width);
  }
};

template <class T>
void attention_grad_of(const Attention& x, const In& dout, const In& dlse, const In& q, const In& k, const In& v,
                       const In& o, const In& lse, const Out& dq, const Out& dk, const Out& dv) {
  const int64_t heads = x.batch * x.kv_heads, size = dq.size();
  const int64_t wanted = smaller(ceil_div(kMinTasks, heads), larger(1, x.keys / kPartKeys));
  const int64_t part_keys = round_up(ceil_div(x.keys, wanted), kKeys), parts = ceil_div(x.keys, part_keys);
  const int64_t rows = round_up(ceil_div(x.rows(), ceil_div(x.rows(), kChunk)), kBlockRows);
  const auto lay_out = [&](void* base, KeyRange*& ranges, DocumentRun*& runs, T*& partial) {
    Arena arena(base);
    ranges = arena.take<KeyRange>(x.batch * x.queries);
    runs = arena.take<DocumentRun>(x.documents() ? x.keys : 0);
    partial = arena.take<T>(parts > 1 ? parts * size : 0);
    return arena.bytes();
  };
  KeyRange* ranges = nullptr;
  DocumentRun* runs = nullptr;
  T* partial = nullptr;
  lay_out(shared_scratch<char>(lay_out(nullptr, ranges, runs, partial)), ranges, runs, partial);
  fill_ranges(x, runs, ranges);

  const Gradient<T> all = Gradient<T>::of(dq);
  const int64_t row = x.heads * x.width;
  const Backward<T> backward = {
      x, dout, dlse, q, k, v, o, lse, ranges, Gradient<T>::of(dk), Gradient<T>::of(dv), Logits<T>(x)};
  BackwardScratch<T> sizes;
  const int64_t bytes = sizes.lay_out(x, rows, nullptr);
  parallel_for(heads * parts, [&](int64_t task, int worker) {
    BackwardScratch<T> scratch;
    scratch.lay_out(x, rows, worker_scratch<char>(worker, bytes));
    const int64_t head = task % heads, first = task / heads * part_keys;
    const Gradient<T> to = parts == 1 ? all : Gradient<T>{partial + task / heads * size, x.queries * row, row};
    backward.part({head / x.kv_heads, head % x.kv_heads}, first, smaller(x.keys, first + part_keys), to, rows, scratch);
  });
  if (parts == 1) return;
  const int64_t piece = larger(1, (1 << 14) / row), queries = x.batch * x.queries;  // rows of a task
  parallel_for(ceil_div(queries, piece), [&](int64_t task, int) {
    for (int64_t t = task * piece; t < smaller(queries, (task + 1) * piece); ++t) {
      T* const to = all.row(t / x.queries, t % x.queries, 0);
      for (int64_t i = 0; i < row; ++i) to[i] = partial[t * row + i];
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = 0; i < row; ++i) to[i] += partial[part * size + t * row + i];
    }
  });
}

}  // namespace

void CpuKernels::attention_grad(const In& dout, const In& dlse, const In& q, const In& k, const In& v, const In& o,
                                const In& lse, const In& q_doc, const In& k_doc, const In& prefix, double scale,
                                bool causal, int64_t window, int64_t q_offset, double softcap, const In& cos,
                                const In& sin, bool interleaved, const Out& dq, const Out& dk, const Out& dv) {
  const Attention x = attention_shape(q, k, v, q_doc, k_doc, prefix, scale, causal, window, q_offset, softcap);
  if (q.dtype == DType::kF64)
    attention_grad_of<double>(x, dout, dlse, q, k, v, o, lse, dq, dk, dv);
  else
    attention_grad_of<float>(x, dout, dlse, q, k, v, o, lse, dq, dk, dv);
  if (!cos.present()) return;
  rope(In{dq}, cos, sin, interleaved, true, dq);
  rope(In{dk}, cos, sin, interleaved, true, dk);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
