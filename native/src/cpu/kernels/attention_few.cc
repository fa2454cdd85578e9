// Attention of few rows over many keys, as when decoding: the time is that of reading the keys and values, so they are
// read once, in the order in which they lie in memory, for all heads. A task is a part of the keys of one batch
// element; it turns each tile of keys so that they lie on the lanes.
#include "attention_results.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kPartKeys = 128, kMaxParts = 64;

template <class T>
struct FewScratch {
  static constexpr int64_t kTile = kStrip<T>;
  T *queries, *out, *maxima, *sums;  // of all heads
  T *keys, *values, *scores, *rows;  // of a tile of one

  int64_t lay_out(const Attention& x, void* base) {
    Arena arena(base);
    const int64_t all_rows = x.kv_heads * x.rows();
    queries = arena.take<T>(all_rows * x.width + kLanes<T>), out = arena.take<T>(all_rows * padded<T>(x.value_width));
    maxima = arena.take<T>(all_rows), sums = arena.take<T>(all_rows);
    keys = arena.take<T>(kTile * x.width + kLanes<T>), values = arena.take<T>(kTile * padded<T>(x.value_width));
    scores = arena.take<T>(kFewRows * kTile), rows = arena.take<T>(kFewRows * padded<T>(x.width));
    return arena.bytes();
  }
};

template <class T>
class Few {
 public:
  static constexpr int64_t L = kLanes<T>, kTile = FewScratch<T>::kTile;
  const Attention& x;
  const In &q, &k, &v;
  const AttentionResults<T>& results;
  const Logits<T> logits;

  // The keys [keys.from, keys.to) of batch element b and all its rows.
  void part(int64_t b, int64_t index, Span keys, const FewScratch<T>& s) const {
    const int64_t rows = x.rows(), value_width = padded<T>(x.value_width);
    for (int64_t head = 0; head < x.kv_heads; ++head) {
      gather_rows(x, q, b, head, 0, rows, logits.score_factor, s.rows);
      pack_a(s.rows, padded<T>(x.width), 1, rows, x.width, s.queries + head * rows * x.width, panel_rows(rows));
    }
    for (int64_t i = 0; i < x.kv_heads * rows * value_width; ++i) s.out[i] = 0;
    for (int64_t i = 0; i < x.kv_heads * rows; ++i) s.sums[i] = 0, s.maxima[i] = -__builtin_inf();
    const Span seen = keys_seen(b, keys);
    for (int64_t j0 = seen.from; j0 < seen.to; j0 += kTile)
      for (int64_t head = 0; head < x.kv_heads; ++head) {
        const bool last = head + 1 == x.kv_heads;
        const int64_t next_head = last ? 0 : head + 1, next = last ? j0 + kTile : j0;
        prefetch(k, b, next_head, {next, smaller(seen.to, next + kTile)});
        prefetch(v, b, next_head, {next, smaller(seen.to, next + kTile)});
        tile(b, head, j0, smaller(kTile, seen.to - j0), s);
      }
    for (int64_t head = 0; head < x.kv_heads; ++head)
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = head * rows + r;
        results.keep(index, b, r / x.groups, head * x.groups + r % x.groups, s.maxima[at], s.sums[at],
                     s.out + at * value_width);
      }
  }

 private:
  // Rows of one head are short and far apart: the processor doesn't foresee them.
  void prefetch(const In& view, int64_t b, int64_t head, Span keys) const {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    const T* const from = view.template as<const T>() + b * view.strides[0] + head * view.strides[2];
    for (int64_t j = keys.from; j < keys.to; ++j)
      for (int64_t c = 0; c < view.shape[3]; c += kLine) __builtin_prefetch(from + j * view.strides[1] + c, 0, 2);
  }

  const KeyRange& range(int64_t b, int64_t row) const { return results.ranges[b * x.queries + row / x.groups]; }

  // Those of some keys that a row sees, begun at a whole tile from the first.
  Span keys_seen(int64_t b, Span keys) const {
    int64_t begin = keys.to, end = keys.from;
    for (int64_t r = 0; r < x.rows(); ++r)
      begin = smaller(begin, range(b, r).first), end = larger(end, range(b, r).last + 1);
    return {keys.from + larger(0, begin - keys.from) / kTile * kTile, smaller(keys.to, end)};
  }

  bool sees(int64_t b, int64_t row, int64_t j) const {
    const KeyRange& keys = range(b, row);
    return keys.first <= j && j <= keys.last &&
           (keys.solid || x.query_document(b, row / x.groups) == x.key_document(b, j));
  }

  void tile(int64_t b, int64_t head, int64_t j0, int64_t count, const FewScratch<T>& s) const {
    const int64_t rows = x.rows(), value_width = padded<T>(x.value_width);
    bool any = false, whole = count == kTile;
    for (int64_t r = 0; r < rows; ++r) {
      const KeyRange& keys = range(b, r);
      any = any || (keys.first < j0 + count && keys.last >= j0);
      whole = whole && keys.solid && keys.first <= j0 && keys.last >= j0 + count - 1;
    }
    if (!any) return;
    const T* const from = k.as<const T>() + b * k.strides[0] + j0 * k.strides[1] + head * k.strides[2];
    pack_b(from, k.strides[3], k.strides[1], count, x.width, s.keys, 0, 1);
    gather_keys(v, b, head, j0, count, s.values);
    multiply_packed<T>(rows, kTile, x.width, s.queries + head * rows * x.width, panel_rows(rows), s.keys, kTile, 0,
                       {s.scores, kTile});
    for (int64_t r = 0; r < rows; ++r) softmax(b, r, j0, count, whole, s.scores + r * kTile, head * rows + r, s);
    T* const out = s.out + head * rows * value_width;
    if (whole)
      return multiply_rows<T, kTile>(rows, value_width, count, s.scores, s.values, value_width, kStrip<T>, out,
                                     value_width, true);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < count; ++j)
        if (sees(b, r, j0 + j))
          add_multiple(s.scores[r * kTile + j], s.values + j * value_width, value_width, out + r * value_width);
  }

  // Scores of a row become 2^(s − m); its m, sum and output so far follow.
  void softmax(int64_t b, int64_t r, int64_t j0, int64_t count, bool whole, T* scores, int64_t at,
               const FewScratch<T>& s) const {
    const T minus_infinity = -__builtin_inf();
    if (x.softcap > 0)
      for (int64_t j = 0; j < kTile; j += L) store<T>(scores + j, logits.tanh(load(scores + j)) * logits.cap);
    if (!whole)
      for (int64_t j = 0; j < kTile; ++j)
        if (j >= count || !sees(b, r, j0 + j)) scores[j] = minus_infinity;
    Vec<T> highest = splat(s.maxima[at]);
    for (int64_t j = 0; j < kTile; j += L) highest = vmax<Vec<T>>(load(scores + j), highest);
    const T maximum = reduce_max<T>(highest), shift = maximum == minus_infinity ? T{0} : maximum;
    if (maximum > s.maxima[at]) {
      const T factor = vexp2(splat(s.maxima[at] - shift))[0];
      T* const out = s.out + at * padded<T>(x.value_width);
      for (int64_t c = 0; c < padded<T>(x.value_width); c += L) store<T>(out + c, load(out + c) * factor);
      s.sums[at] *= factor;
      s.maxima[at] = maximum;
    }
    Vec<T> total = {};
    for (int64_t j = 0; j < kTile; j += L) {
      const Vec<T> p = vexp2(load(scores + j) - splat(shift));
      store<T>(scores + j, p);
      total += p;
    }
    s.sums[at] += reduce_sum<T>(total);
  }
};

template <class T>
void attention_in_parts(const Attention& x, const In& q, const In& k, const In& v, const Out& o, const Out& lse) {
  const int64_t most = larger(1, kMaxParts / x.batch);
  const int64_t cuts = larger(1, smaller(most, x.keys / kPartKeys));
  const int64_t part_keys = round_up(ceil_div(x.keys, cuts), FewScratch<T>::kTile);
  const int64_t parts = ceil_div(x.keys, part_keys);
  const AttentionResults<T> results(x, o, lse, parts);
  const Few<T> few = {x, q, k, v, results, Logits<T>(x)};
  FewScratch<T> sizes;
  const int64_t bytes = sizes.lay_out(x, nullptr);
  parallel_for(x.batch * parts, [&](int64_t task, int worker) {
    FewScratch<T> scratch;
    scratch.lay_out(x, worker_scratch<char>(worker, bytes));
    const int64_t part = task % parts, from = part * part_keys;
    few.part(task / parts, part, {from, smaller(x.keys, from + part_keys)}, scratch);
  });
  results.merge();
}

}  // namespace

template <class T>
void attention_of_few(const Attention& x, const In& q, const In& k, const In& v, const Out& o, const Out& lse) {
  attention_in_parts<T>(x, q, k, v, o, lse);
}
template void attention_of_few<float>(const Attention&, const In&, const In&, const In&, const Out&, const Out&);
template void attention_of_few<double>(const Attention&, const In&, const In&, const In&, const Out&, const Out&);

}  // namespace llmeff::cpu::LLMEFF_ISA
