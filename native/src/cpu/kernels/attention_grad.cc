// Attention, backward (Dao et al., FlashAttention, arXiv:2205.14135): with P recomputed as exp(s − lse) and δ = Σ
// dout∘o per row,
//   dv = Pᵀ·dout,  dS = P ∘ (dout·vᵀ − δ) ∘ (1 − tanh²(s/softcap)),  dq = scale·dS·k,  dk = scale·dSᵀ·q.
//
// A task owns one (batch, key/value head): its keys meet all rows of the group, so dk and dv need no sharing and dq is
// summed over key tiles in order. Where there are few heads the keys are cut into parts by their number alone; each
// part then writes a partial dq of its own, added afterwards in order. Rows go in chunks, to bound the memory of long
// sequences.
#include "attention_tile.h"
#include "llmeff/parallel.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kChunk = 512;
constexpr int64_t kPartKeys = 4 * kKeys;  // of a part, at least

template <class T>
struct BackwardScratch {
  T *queries, *query_panels, *douts, *dout_panels, *dq;  // of a chunk of rows
  T *lse, *delta, *output;
  T *keys, *key_strips, *value_strips, *dk, *dv;  // of a tile of keys
  T *p, *ds;

  static int64_t elements(const Attention& x, int64_t chunk) {
    BackwardScratch s;
    return s.lay_out(x, chunk, nullptr);
  }
  int64_t lay_out(const Attention& x, int64_t chunk, T* base) {
    int64_t used = 0;
    const auto take = [&](int64_t count) {
      T* const at = base + used;
      used += round_up(count, 16);
      return at;
    };
    constexpr int64_t L = kLanes<T>;
    const int64_t width = padded<T>(x.width), value_width = padded<T>(x.value_width),
                  strips = round_up(kKeys, kStrip<T>);
    queries = take(chunk * width), query_panels = take(chunk * x.width + L), dq = take(chunk * width);
    douts = take(chunk * value_width), dout_panels = take(chunk * x.value_width + L);
    lse = take(chunk), delta = take(chunk), output = take(value_width);
    keys = take(kKeys * width), key_strips = take(strips * x.width + L), dk = take(kKeys * width);
    value_strips = take(strips * x.value_width + L), dv = take(kKeys * value_width);
    p = take(kQueryRows * kKeys), ds = take(kQueryRows * kKeys);
    return used;
  }
};

struct Head {
  int64_t b, kv_head;
};

// One row: scores in p become probabilities, dout·vᵀ in ds becomes dS.
template <class T>
LLMEFF_INLINE void grad_row(const Attention& x, int64_t r, int64_t j0, int64_t columns, T lse, T delta, T* p, T* ds) {
  constexpr int64_t L = kLanes<T>;
  const RowMask<T> mask(x, r, j0, columns);
  if (x.softcap > 0) {
    const T cap = static_cast<T>(x.softcap), inverse = static_cast<T>(1 / x.softcap);
    for (int64_t j = 0; j < columns; j += L) {
      const Vec<T> turned = capped_tanh<T>(load(p + j) * inverse);
      Vec<T> weight = vexp(turned * cap - splat(lse)),
             slope = weight * (load(ds + j) - splat(delta)) * (T{1} - turned * turned);
      const Mask<T> seen = mask.at(j);
      store<T>(p + j, seen ? weight : Vec<T>{});
      store<T>(ds + j, seen ? slope : Vec<T>{});
    }
    return;
  }
  for (int64_t j = 0; j < columns; j += L) {
    Vec<T> weight = vexp(load(p + j) - splat(lse)), slope = weight * (load(ds + j) - splat(delta));
    if (!mask.whole) {
      const Mask<T> seen = mask.at(j);
      weight = seen ? weight : Vec<T>{};
      slope = seen ? slope : Vec<T>{};
    }
    store<T>(p + j, weight);
    store<T>(ds + j, slope);
  }
}

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

template <class T>
class Backward {
 public:
  const Attention& x;
  const In &dout, &q, &k, &v, &o, &lse;
  T *dk, *dv;

  // The keys [first, last) of one head and all rows; dq [B, T, H, D] receives their part of the sum.
  void part(Head head, int64_t first, int64_t last, T* dq, int64_t chunk, const BackwardScratch<T>& s) const {
    const int64_t heads = x.kv_heads;
    T* const dk_rows = dk + (head.b * x.keys * heads + head.kv_head) * x.width;
    T* const dv_rows = dv + (head.b * x.keys * heads + head.kv_head) * x.value_width;
    for (int64_t j = first; j < last; ++j) {
      clear(dk_rows + j * heads * x.width, x.width);
      clear(dv_rows + j * heads * x.value_width, x.value_width);
    }
    for (int64_t c0 = 0; c0 < x.rows(); c0 += chunk) {
      const int64_t count = smaller(chunk, x.rows() - c0);
      const bool finite_rows = load_rows(head, c0, count, s);
      const int64_t begin = larger(first, x.first_key(c0 / x.groups) / kKeys * kKeys);
      const int64_t end = smaller(last, x.last_key((c0 + count - 1) / x.groups) + 1);
      for (int64_t j0 = begin; j0 < end; j0 += kKeys) {
        const int64_t keys = smaller(kKeys, last - j0);
        tile(head, c0, count, j0, keys, finite_rows, s);
        add_rows(s.dk, keys, x.width, dk_rows + j0 * heads * x.width, heads * x.width);
        add_rows(s.dv, keys, x.value_width, dv_rows + j0 * heads * x.value_width, heads * x.value_width);
      }
      const int64_t width = padded<T>(x.width);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t t = (c0 + i) / x.groups, h = head.kv_head * x.groups + (c0 + i) % x.groups;
        T* const to = dq + ((head.b * x.queries + t) * x.heads + h) * x.width;
        write_row(s.dq + i * width, x.width, static_cast<T>(x.scale), to, 1);
      }
    }
  }

 private:
  // Copies, scales and packs the rows of a chunk; their lse and δ. Returns whether their q and dout are finite.
  bool load_rows(Head head, int64_t c0, int64_t count, const BackwardScratch<T>& s) const {
    constexpr int64_t L = kLanes<T>;
    const int64_t width = padded<T>(x.width), value_width = padded<T>(x.value_width), block = block_rows(count);
    gather_queries(x, q, head.b, head.kv_head, c0, count, static_cast<T>(x.scale), s.queries);
    gather_queries(x, dout, head.b, head.kv_head, c0, count, T{1}, s.douts);
    for (int64_t r0 = 0; r0 < count; r0 += block) {
      const int64_t rows = smaller(block, count - r0);
      pack_a(s.queries + r0 * width, width, 1, rows, x.width, s.query_panels + r0 * x.width, panel_rows(rows));
      pack_a(s.douts + r0 * value_width, value_width, 1, rows, x.value_width, s.dout_panels + r0 * x.value_width,
             panel_rows(rows));
    }
    for (int64_t i = 0; i < count; ++i) {
      gather_queries(x, o, head.b, head.kv_head, c0 + i, 1, T{1}, s.output);
      Vec<T> sum = {};
      for (int64_t c = 0; c < value_width; c += L) sum += load(s.output + c) * load(s.douts + i * value_width + c);
      s.delta[i] = reduce_sum<T>(sum);
      const int64_t t = (c0 + i) / x.groups, h = head.kv_head * x.groups + (c0 + i) % x.groups;
      s.lse[i] = lse.template as<const T>()[(head.b * x.heads + h) * x.queries + t];
    }
    clear(s.dq, count * width);
    return all_finite(s.queries, count * width) && all_finite(s.douts, count * value_width);
  }

  // One tile of keys against all blocks of rows of the chunk: fills s.dk, s.dv and adds to s.dq.
  void tile(Head head, int64_t c0, int64_t count, int64_t j0, int64_t keys, bool finite_rows,
            const BackwardScratch<T>& s) const {
    constexpr int64_t L = kLanes<T>, N = kStrip<T>;
    const int64_t width = padded<T>(x.width), value_width = padded<T>(x.value_width), block = block_rows(count);
    gather_keys(k, head.b, head.kv_head, j0, keys, s.keys);
    pack_keys(k, head.b, head.kv_head, j0, keys, s.key_strips);
    pack_keys(v, head.b, head.kv_head, j0, keys, s.value_strips);
    clear(s.dk, keys * width);
    clear(s.dv, keys * value_width);
    const bool exact = !all_visible(x, c0, c0 + count, j0, keys) && !(finite_rows && all_finite(s.keys, keys * width));
    for (int64_t r0 = 0; r0 < count; r0 += block) {
      const int64_t rows = smaller(block, count - r0), panel = panel_rows(rows);
      const int64_t seen = visible_columns(x, c0 + r0, c0 + r0 + rows, j0, keys);
      if (seen == 0) continue;
      const int64_t columns = round_up(seen, L);
      multiply_packed<T>(rows, columns, x.width, s.query_panels + r0 * x.width, panel, s.key_strips, N, N * x.width,
                         {s.p, kKeys, false, nullptr});
      multiply_packed<T>(rows, columns, x.value_width, s.dout_panels + r0 * x.value_width, panel, s.value_strips, N,
                         N * x.value_width, {s.ds, kKeys, false, nullptr});
      for (int64_t i = 0; i < rows; ++i)
        grad_row(x, c0 + r0 + i, j0, columns, s.lse[r0 + i], s.delta[r0 + i], s.p + i * kKeys, s.ds + i * kKeys);
      if (!exact) {
        accumulate(r0, rows, {0, seen}, s.p, s.ds, s);
        continue;
      }
      for (int64_t i = 0; i < rows; ++i)
        accumulate(r0 + i, 1, visible_range(x, c0 + r0 + i, j0, keys), s.p + i * kKeys, s.ds + i * kKeys, s);
    }
  }

  // dv += Pᵀ·dout, dk += dSᵀ·q and dq += dS·k for some rows and keys of a tile; p and ds begin with these rows.
  LLMEFF_INLINE void accumulate(int64_t row, int64_t rows, Range keys, const T* p, const T* ds,
                                const BackwardScratch<T>& s) const {
    constexpr int64_t N = kStrip<T>;
    const int64_t width = padded<T>(x.width), value_width = padded<T>(x.value_width), count = keys.to - keys.from;
    if (count <= 0) return;
    multiply_transposed(count, value_width, rows, p + keys.from, kKeys, s.douts + row * value_width, value_width, N,
                        s.dv + keys.from * value_width, value_width, true);
    multiply_transposed(count, width, rows, ds + keys.from, kKeys, s.queries + row * width, width, N,
                        s.dk + keys.from * width, width, true);
    multiply_rows<T, kKeys>(rows, width, count, ds + keys.from, s.keys + keys.from * width, width, N,
                            s.dq + row * width, width, true);
  }
};

template <class T>
void attention_grad_of(const Attention& x, const In& dout, const In& q, const In& k, const In& v, const In& o,
                       const In& lse, const Out& dq, const Out& dk, const Out& dv) {
  const Backward<T> backward = {x, dout, q, k, v, o, lse, dk.as<T>(), dv.as<T>()};
  const int64_t heads = x.batch * x.kv_heads, size = dq.size();
  const int64_t wanted = smaller(divide_up(kMinTasks, heads), larger(1, x.keys / kPartKeys));
  const int64_t part_keys = round_up(divide_up(x.keys, wanted), kKeys), parts = divide_up(x.keys, part_keys);
  const int64_t rows = divide_up(x.rows(), divide_up(x.rows(), kChunk));
  const int64_t elements = BackwardScratch<T>::elements(x, rows);
  T* const partial = parts == 1 ? dq.as<T>() : shared_scratch<T>(parts * size);
  parallel_for(heads * parts, [&](int64_t task, int worker) {
    BackwardScratch<T> scratch;
    scratch.lay_out(x, rows, worker_scratch<T>(worker, elements));
    const int64_t head = task % heads, first = task / heads * part_keys;
    backward.part({head / x.kv_heads, head % x.kv_heads}, first, smaller(x.keys, first + part_keys),
                  partial + task / heads * size, rows, scratch);
  });
  if (parts == 1) return;
  constexpr int64_t kPiece = 1 << 14;
  parallel_for(divide_up(size, kPiece), [&](int64_t task, int) {
    const int64_t begin = task * kPiece, count = smaller(kPiece, size - begin);
    T* const to = dq.as<T>() + begin;
    for (int64_t i = 0; i < count; ++i) to[i] = partial[begin + i];
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t i = 0; i < count; ++i) to[i] += partial[part * size + begin + i];
  });
}

}  // namespace

void CpuKernels::attention_grad(const In& dout, const In& q, const In& k, const In& v, const In& o, const In& lse,
                                double scale, bool causal, int64_t window, int64_t q_offset, double softcap,
                                const Out& dq, const Out& dk, const Out& dv) {
  const Attention x = attention_shape(q, k, v, scale, causal, window, q_offset, softcap);
  if (q.dtype == DType::kF64) return attention_grad_of<double>(x, dout, q, k, v, o, lse, dq, dk, dv);
  attention_grad_of<float>(x, dout, q, k, v, o, lse, dq, dk, dv);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
